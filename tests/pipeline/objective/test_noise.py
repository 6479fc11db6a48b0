"""Draws depend on the sample's place in the run only; references are chosen and noised as promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pipeline.batch import Batch
from pipeline.config import NoiseConfig
from pipeline.objective import noise
from pipeline.objective.processes import Flow

MakeBatch = Callable[..., Batch]


def test_streams_are_repeatable_and_differ_by_seed_position_purpose_and_index() -> None:
    names = [(0, 1, "noise"), (1, 1, "noise"), (0, 2, "noise"), (0, 1, "sigma"), (0, 1, "noise", 3)]
    draws = [torch.randn(4, generator=noise.stream(*name)) for name in names]
    again = [torch.randn(4, generator=noise.stream(*name)) for name in names]
    assert all(torch.equal(a, b) for a, b in zip(draws, again, strict=True))
    assert len({tuple(d.tolist()) for d in draws}) == len(names)


def test_draws_do_not_depend_on_the_batch_they_are_made_in() -> None:
    positions = torch.tensor([7, 3, 12])
    latents = torch.zeros(3, 4, 2, 3, 3)
    whole = noise.noise_like(latents, 5, positions)
    levels = noise.noise_levels(NoiseConfig(), 5, positions, Flow(3.0))
    flips = noise.coins(5, positions, "x", 0.5)
    for i in range(3):
        one = positions[i : i + 1]
        assert torch.equal(whole[i : i + 1], noise.noise_like(latents[:1], 5, one))
        assert torch.equal(levels[i : i + 1], noise.noise_levels(NoiseConfig(), 5, one, Flow(3.0)))
        assert torch.equal(flips[i : i + 1], noise.coins(5, one, "x", 0.5))


def test_coins_come_up_as_often_as_asked() -> None:
    share = noise.coins(0, torch.arange(4000), "mask_loss", 0.3).float().mean().item()
    assert share == pytest.approx(0.3, abs=0.03)  # 4 standard deviations


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
def test_noise_levels_follow_their_distribution(distribution: str, shift: float) -> None:
    config = NoiseConfig(distribution=distribution)  # type: ignore[arg-type]
    levels = noise.noise_levels(config, 0, torch.arange(3000), Flow(shift))
    assert levels.min() > 0 and levels.max() < 1
    # undo the shift: both distributions are symmetric around one half
    plain = levels / (shift - (shift - 1) * levels)
    assert plain.median().item() == pytest.approx(0.5, abs=0.03)
    quarter = {"uniform": 0.25, "logit_normal": torch.tensor(-0.6745).sigmoid().item()}[distribution]
    assert plain.quantile(0.25).item() == pytest.approx(quarter, abs=0.03)


def test_an_anchor_is_a_first_frame_without_noise() -> None:
    levels = noise.anchored(
        torch.tensor([0.3, 0.8]), torch.tensor([True, False]), torch.tensor([[True, False, False]])
    )
    torch.testing.assert_close(levels, torch.tensor([[0.0, 0.3, 0.3], [0.8, 0.8, 0.8]]))


def test_what_is_given_is_drawn_evenly_and_never_all() -> None:
    positions = torch.arange(300)
    config = NoiseConfig(anchor=1.0, given=("first", "history", "ends"))
    rows = noise.given_frames(config, 3, positions, 5)
    assert rows[:, 0].all() and not rows.all(1).any()
    assert torch.equal(rows, noise.given_frames(config, 3, positions, 5))
    halves = torch.cat([noise.given_frames(config, 3, some, 5) for some in positions.split(170)])
    assert torch.equal(rows, halves)  # however samples are batched
    ends = rows[:, -1]
    assert 70 < ends.sum() < 130 and not rows[ends, 1:-1].any()
    history = rows[~ends].sum(1)
    assert torch.equal(
        rows[~ends], torch.arange(5) < history[:, None]
    )  # frames from the first on, without a gap
    assert set(history.tolist()) == {1, 2, 3, 4}
    plain = noise.given_frames(NoiseConfig(), 3, positions, 5)
    assert plain.sum() == 300
    short = noise.given_frames(config, 3, positions, 2)
    assert torch.equal(short, torch.tensor([[True, False]]).expand(300, 2))


def test_always_cross_face_shows_outside_references_only(make_batch: MakeBatch) -> None:
    batch = make_batch()
    chosen = noise.choose_references(NoiseConfig(cross_face=1.0), 0, batch)
    assert torch.equal(chosen.mask, batch.reference_mask)
    assert torch.equal(chosen.outside, batch.cast_mask)
    cosine = (chosen.embeddings * batch.references).sum(-1)[batch.reference_mask]
    assert cosine.min() > 0.95  # the same faces, noised


def test_never_cross_face_shows_own_faces_and_outside_ones_where_there_is_none(make_batch: MakeBatch) -> None:
    batch = make_batch()
    batch = replace(batch, own_mask=torch.tensor([[True, False], [True, False]]))
    chosen = noise.choose_references(NoiseConfig(cross_face=0.0), 0, batch)
    assert chosen.outside.tolist() == [[False, True], [False, False]]  # slot 1 of sample 1 is empty
    assert chosen.mask[0].tolist() == [[True, False, False, False], [True, True, True, False]]
    assert (chosen.embeddings[0, 0, 0] @ batch.own_faces[0, 0]).item() > 0.95
    assert (chosen.embeddings[0, 1, 0] @ batch.references[0, 1, 0]).item() > 0.95


def test_reference_noise_has_the_size_it_is_given_and_keeps_unit_length(make_batch: MakeBatch) -> None:
    batch = make_batch(num_samples=64)
    config = NoiseConfig(cross_face=1.0, reference_log_sigma_mean=-1.0, reference_log_sigma_std=0.0)
    chosen = noise.choose_references(config, 0, batch)
    valid = chosen.mask
    assert torch.allclose(chosen.embeddings[valid].norm(dim=-1), torch.ones(int(valid.sum())), atol=1e-5)
    cosine = (chosen.embeddings * batch.references).sum(-1)[valid].mean().item()
    sigma = torch.tensor(-1.0).exp().item()
    assert cosine == pytest.approx((1 + sigma**2) ** -0.5, abs=0.01)  # noise orthogonal to a unit vector
    assert torch.equal(chosen.embeddings[~valid], batch.references[~valid])


def test_more_padding_changes_no_reference(make_batch: MakeBatch) -> None:
    batch = make_batch()
    pad = torch.nn.functional.pad
    wider = replace(
        batch,
        references=pad(batch.references, (0, 0, 0, 2, 0, 1)),
        reference_mask=pad(batch.reference_mask, (0, 2, 0, 1)),
        own_faces=pad(batch.own_faces, (0, 0, 0, 1)),
        own_mask=pad(batch.own_mask, (0, 1)),
        cast_mask=pad(batch.cast_mask, (0, 1)),
    )
    narrow, wide = (noise.choose_references(NoiseConfig(), 0, b) for b in (batch, wider))
    assert torch.equal(narrow.embeddings, wide.embeddings[:, :2, :4])
    assert torch.equal(narrow.mask, wide.mask[:, :2, :4])
