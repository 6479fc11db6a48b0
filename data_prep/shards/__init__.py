"""The public shard format, version 2: WebDataset tars, an index and a manifest that is written last.

A sample is five members with one dot-free key; every sample of a folder has the same five, so that plain
``webdataset`` and ``datasets.load_dataset("webdataset", ...)`` read them without us, and nothing is a pickle:

======================  ====================================================================================
``KEY.mp4``             the window's frames, H.264, yuv420p, constant rate
``KEY.txt``             the training caption, UTF-8: one identity sentence per cast slot, then the description
``KEY.json``            the ``SampleNote``: where it comes from, the cast, every reference's origin and landmarks,
                        captions
``KEY.labelmap.png``    8-bit grey, the T label maps stacked from top to bottom (height T·H); 0 is nobody, k is
                        the k-th of the cast: their face, or, where ``mask_region`` says so, all of them
``KEY.references.png``  RGB, one row per cast slot, one 112x112 aligned face per reference, black where a slot
                        has fewer
======================  ====================================================================================

Samples to train on are in ``shard-NNNNNN.tar``; what ``pack.validation`` keeps apart, with all of its sources and
people, is in ``validation-NNNNNN.tar``. Beside the tars: ``index.jsonl`` (shard, key, offset, length and sha256 of
every sample, with its cast, source and split), ``lineage.jsonl`` (what each sample was made from) and
``manifest.json`` (schema, counts, sha256 of every shard, the corpus's calibration, a fingerprint of clips and
configuration). A folder without a manifest is unfinished and is refused. Embeddings are biometric data and are
never in here.

``schema`` in every note and in the manifest is the version. Version 1 has no ``landmarks_px`` in its references and
is read as well; a folder is of one version, and ``castbank prepare`` writes all of its shards in the present one.
"""

from data_prep.shards.files import (
    IndexRow,
    Manifest,
    ShardFile,
    Split,
    WrittenShard,
    check_index,
    row_of,
    shard_name,
    write_index,
    write_shard,
    write_tar,
)
from data_prep.shards.reader import ShardSet
from data_prep.shards.sample import (
    MEMBERS,
    SCHEMA,
    CastMember,
    ReferenceNote,
    Sample,
    SampleNote,
    ShardError,
    check_references,
    decode_sample,
    encode_sample,
)

__all__ = [
    "MEMBERS",
    "SCHEMA",
    "CastMember",
    "IndexRow",
    "Manifest",
    "ReferenceNote",
    "Sample",
    "SampleNote",
    "ShardError",
    "ShardFile",
    "ShardSet",
    "Split",
    "WrittenShard",
    "check_index",
    "check_references",
    "decode_sample",
    "encode_sample",
    "row_of",
    "shard_name",
    "write_index",
    "write_shard",
    "write_tar",
]
