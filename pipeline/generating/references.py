"""Characters out of pictures that a person gives: one face each, of one person, as entries of a bank."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from data_prep.faces import analyser_for
from data_prep.faces.geometry import CROP_PX
from data_prep.faces.landmarks import five_points
from data_prep.faces.packs import PackSpec, find_pack
from data_prep.faces.recogniser import embed_crops
from data_prep.records import F32, U8, InputError
from pipeline.generate import LoadedRun
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.fitting import packs_of
from pipeline.identity.tokens import fingerprint, tokens_of

MOST = 5  # pictures of one character; training shows as many
USUAL_PACK = "embedded"


def with_references(
    loaded: LoadedRun, given: Mapping[str, Sequence[U8]], pack: str | None = None
) -> IdentityBank:
    """The bank with characters that pictures show beside its own.

    The same pictures in another order are the same character, bit for bit.

    Args:
        loaded: whose network makes tokens of them, and whose bank says by which face pack.
        given: name to 1..5 pictures, each u8[H,W,3] RGB with one face; one of 112x112 is taken to be aligned.
        pack: another face pack than the bank's.

    Raises:
        InputError: a name that the bank has, too many pictures, no face or several, a covered one, two people
            under one name, or a face pack that the network was not trained with.
    """
    spec = find_pack(_pack_of(loaded, pack)).spec
    entries = []
    for name, pictures in given.items():
        if name in loaded.bank.entries:
            raise InputError(f"reference: {name!r} is in the bank already; take the bank's, or another name")
        if not 1 <= len(pictures) <= MOST:
            raise InputError(
                f"reference: {len(pictures)} pictures of {name!r} came; give 1 to {MOST}, more is better"
            )
        crops = [_face(picture, f"{name!r}, picture {k}", spec) for k, picture in enumerate(pictures, 1)]
        entries.append(_entry(loaded, name, crops, spec))
    return IdentityBank([*loaded.bank.entries.values(), *entries])


def _pack_of(loaded: LoadedRun, asked: str | None) -> str:
    """By which face pack: the bank's; raises InputError where that is not one, or another was asked for."""
    packs = sorted(packs_of(loaded.bank))
    if len(packs) > 1:
        raise InputError(f"reference: the bank mixes face packs {', '.join(packs)}; enrol everybody with one")
    trained = packs[0] if packs else USUAL_PACK
    pack, width = asked or trained, loaded.model.config.identity.embedding_dim
    dim = find_pack(pack).spec.dim
    if (pack != trained and packs) or dim != width:
        raise InputError(
            f"reference: face pack {pack!r} ({dim} numbers) was asked for, this model was trained with "
            f"{trained if packs else 'one'} of {width} numbers; pictures must be seen by the same recogniser"
        )
    return pack


def _face(picture: U8, said: str, spec: PackSpec) -> U8:
    """The one face, u8[112,112,3] aligned."""
    if picture.shape[:2] == (CROP_PX, CROP_PX):
        return picture
    analyser = analyser_for(spec.name)
    faces = [face for face in analyser.detect(picture) if face.score >= spec.min_score]
    if len(faces) != 1:
        found = f"{len(faces)} faces" if faces else "no face"
        remedy = "crop it to the one that is meant" if faces else "give one that shows the face, uncovered"
        raise InputError(f"reference: {found} in {said} ({picture.shape[1]}x{picture.shape[0]}); {remedy}")
    return analyser.measure(picture, faces[0]).crop


def _entry(loaded: LoadedRun, name: str, crops: Sequence[U8], spec: PackSpec) -> BankEntry:
    """Of faces in an order of their own: by content, so that the order they came in does not matter."""
    ordered = np.stack(sorted(crops, key=lambda crop: hashlib.sha256(np.asarray(crop).tobytes()).digest()))
    embeddings, norms = embed_crops(spec.name, ordered)
    if norms.min() < spec.min_norm:
        raise InputError(
            f"reference: a face of {name!r} is covered or cut (embedding length {norms.min():.2f}, at least "
            f"{spec.min_norm}); give another picture"
        )
    _check_one_person(name, embeddings, spec)
    network = loaded.model.identity
    landmarks = None
    if network.low_frequency is not None:
        landmarks = torch.from_numpy(five_points(spec.name, ordered[:1])[0])
    references = torch.from_numpy(embeddings)
    return BankEntry(
        name=name,
        tokens=tokens_of(network.encoder, references),
        references=references,
        pack=spec.name,
        provenance=tuple(hashlib.sha256(crop.tobytes()).hexdigest()[:12] for crop in ordered),
        network=fingerprint(network.encoder),
        picture=torch.from_numpy(ordered[0].copy()),
        landmarks=landmarks,
    )


def _check_one_person(name: str, embeddings: F32, spec: PackSpec) -> None:
    """Raise InputError where two faces under one name are of two people."""
    alike = embeddings @ embeddings.T
    if alike.min() < spec.same_person:
        raise InputError(
            f"reference: two pictures of {name!r} are of different people: cosine {alike.min():.2f}, the same "
            f"person from {spec.same_person:.2f} (face pack {spec.name}); give pictures of one person, or two names"
        )
