"""Frames that are given clean: there in the latents to the last bit, at noise level 0 in every pass, and refused
where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig
from pipeline.families.contract import Given
from pipeline.generate import Scene, sample
from pipeline.identity.attention import CastContext
from pipeline.model import Model

NewModel = Callable[..., Model]
CONFIG = GenerateConfig(num_frames=5, height_px=32, width_px=48, steps=3, guidance=2.0)


def pictures(num: int, height: int = 32, width: int = 48) -> U8:
    return np.random.default_rng(num).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def latents_of(model: Model, frames: U8) -> torch.Tensor:
    video = (torch.from_numpy(frames).float() / 127.5 - 1).permute(3, 0, 1, 2)[None]
    return model.family.encode(video).latents


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The noise levels of every pass, noted on the way."""
    noted: list[torch.Tensor] = []
    plain = Model.velocity

    def noting(
        self: Model, latents: torch.Tensor, level: torch.Tensor, given: Given, context: CastContext | None
    ) -> torch.Tensor:
        noted.append(level.clone())
        return plain(self, latents, level, given, context)

    monkeypatch.setattr(Model, "velocity", noting)
    return noted


@pytest.mark.parametrize("ends", [False, True])
def test_history_and_ending_are_in_the_latents_to_the_bit(
    ends: bool, new_model: NewModel, levels: list[torch.Tensor]
) -> None:
    model, history = new_model(), pictures(2)
    scene = Scene("Anna", history=history, ending=pictures(1)[0] if ends else None)
    found = sample(model, scene, CONFIG)
    assert torch.equal(found[:, :, :2], latents_of(model, history))
    clean = [0, 1, 4] if ends else [0, 1]
    if ends:
        assert torch.equal(found[:, :, 4:], latents_of(model, pictures(1)))
    assert len(levels) == 2 * CONFIG.steps
    for level in levels:
        assert (level[0] == 0).nonzero().flatten().tolist() == clean
    assert torch.equal(found, sample(model, scene, CONFIG))


def test_what_is_given_changes_the_rest(new_model: NewModel) -> None:
    model = new_model()
    found = [
        sample(model, Scene("Anna", **given), CONFIG)[:, :, 2:4]
        for given in ({}, {"history": pictures(2)}, {"ending": pictures(1)[0]})
    ]
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"history": pictures(5)}, "5 latent frames, of which 5 are given"),
        ({"history": pictures(4), "ending": pictures(1)[0]}, "of which 5 are given"),
        ({"history": pictures(2, 16)}, "history: one of 48x16 came"),
        ({"ending": pictures(1, 32, 64)[0]}, "ending: one of 64x32 came"),
        ({"anchor": pictures(1)[0], "history": pictures(2)}, "an anchor and a history came"),
    ],
)
def test_what_cannot_be_given_is_named(given: dict[str, U8], message: str, new_model: NewModel) -> None:
    with pytest.raises(InputError, match=message):
        sample(new_model(), Scene("Anna", **given), CONFIG)


def test_a_single_frame_that_is_given_leaves_nothing(new_model: NewModel) -> None:
    with pytest.raises(InputError, match="nothing is left to draw"):
        sample(new_model(), Scene("Anna", anchor=pictures(1)[0]), replace(CONFIG, num_frames=1))
