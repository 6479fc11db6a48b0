"""The identity loss on real faces: against slow loops over ONNX Runtime, and by what it does to pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.faces import find_pack
from data_prep.faces.recogniser import recogniser_for
from data_prep.records import F32, U8
from pipeline.data.features import own_face
from pipeline.objective.face_network import FaceNetwork
from pipeline.objective.preservation import Estimate, cut_faces, face_squares, identity_preservation
from tests.pipeline.real_faces import Scene, as_video, read_scene

PACK, SLOTS, BELOW, DRIFT, MIN_PX = "embedded", 3, 0.4, 0.5, 16
Loss = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def scene(footage: Path) -> Scene:
    """Three frames of two people."""
    return read_scene(footage, "cafe-01", (0, 30, 60))


@pytest.fixture(scope="module")
def embed(face_home: Path) -> FaceNetwork:
    return FaceNetwork(find_pack(PACK, face_home))


@pytest.fixture(scope="module")
def references(scene: Scene, face_home: Path) -> F32:
    """f32[2,2,512]: of each person two faces, as ONNX Runtime embeds them."""
    cut = [
        own_face(scene.frames[t : t + 1], scene.labels[t : t + 1] == k, 16) for k in (1, 2) for t in (0, 2)
    ]
    unit, _ = recogniser_for(PACK, face_home).embed(np.stack([face for face in cut if face is not None]))
    return unit.reshape(2, 2, -1)


@pytest.fixture
def estimate(scene: Scene, references: F32) -> Estimate:
    """Three samples with a spare slot each: both people, of whom the second is hidden for a frame; one of them with
    one reference and the other's face; and one that is too noisy to be taken."""
    labels = torch.from_numpy(scene.labels)[None].repeat(3, 1, 1, 1)
    labels[0, 1][labels[0, 1] == 2] = 0
    known = torch.zeros(3, SLOTS, 2, references.shape[-1])
    known[:, :2] = torch.from_numpy(references)
    known[1, :2] = known[1, [1, 0]].clone()
    mask = torch.zeros(3, SLOTS, 2, dtype=torch.bool)
    mask[:, :2] = True
    mask[1, 0, 1] = False
    cast = torch.zeros(3, SLOTS, dtype=torch.bool)
    cast[:, :2] = True
    cast[1, 1] = False
    video = as_video(scene.frames).repeat(3, 1, 1, 1, 1)
    return Estimate(video, labels, known, mask, cast, torch.tensor([0.1, 0.3, 0.5]))


def loss_of(estimate: Estimate, embed: FaceNetwork, min_px: int = MIN_PX) -> torch.Tensor:
    return identity_preservation(estimate, embed, BELOW, DRIFT, min_px)


def one(estimate: Estimate, b: int) -> Estimate:
    return Estimate(**{f.name: getattr(estimate, f.name)[b : b + 1] for f in fields(estimate)})


def slow_loss(estimate: Estimate, b: int, home: Path) -> float:
    """The definition, a loop per character and frame, with own_face's crops and ONNX Runtime's embeddings."""
    if estimate.sigma[b] >= BELOW:
        return 0.0
    frames: U8 = ((estimate.video[b].permute(1, 2, 3, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
    labels, recogniser, characters = estimate.label_map[b].numpy(), recogniser_for(PACK, home), []
    for k in range(SLOTS):
        known = [
            r.numpy()
            for r, ok in zip(estimate.references[b, k], estimate.reference_mask[b, k], strict=True)
            if ok
        ]
        seen: dict[int, F32] = {}
        for t in range(len(frames)):
            face = own_face(frames[t : t + 1], labels[t : t + 1] == k + 1, MIN_PX)
            if face is not None and estimate.cast_mask[b, k] and known:
                seen[t] = recogniser.embed(face[None])[0][0]
        if seen:
            away = [np.mean([np.square(f - r).sum() for r in known]) for f in seen.values()]
            steps = [np.square(f - seen[t + 1]).sum() for t, f in seen.items() if t + 1 in seen]
            characters.append(np.mean(away) + DRIFT * (np.mean(steps) if steps else 0.0))
    return float(np.mean(characters)) if characters else 0.0


def test_is_its_definition(estimate: Estimate, embed: FaceNetwork, face_home: Path) -> None:
    expected = [slow_loss(estimate, b, face_home) for b in range(3)]
    assert 0 < expected[0] < 0.5 < expected[1] and expected[2] == 0  # right people; the wrong one; too noisy
    # own_face rounds its crop to bytes, which moves an embedding by 1e-3
    assert loss_of(estimate, embed).tolist() == pytest.approx(expected, abs=2e-3)


def test_each_sample_stands_alone(estimate: Estimate, embed: FaceNetwork) -> None:
    singles = torch.cat([loss_of(one(estimate, b), embed) for b in range(3)])
    torch.testing.assert_close(loss_of(estimate, embed), singles, rtol=0, atol=1e-5)


def test_cuts_the_faces_that_own_face_cuts(scene: Scene) -> None:
    squares, seen = face_squares(torch.from_numpy(scene.labels)[None], SLOTS, MIN_PX)
    assert seen[0].tolist() == [[True] * 3, [True] * 3, [False] * 3]
    for k in range(2):
        cut = (cut_faces(as_video(scene.frames)[0].transpose(0, 1), squares[0, k]) + 1) * 127.5
        for t in range(3):
            expected = own_face(scene.frames[t : t + 1], scene.labels[t : t + 1] == k + 1, MIN_PX)
            assert expected is not None
            gap = np.abs(cut[t].permute(1, 2, 0).numpy() - expected)
            assert gap.max() < 0.6  # of 255; half is own_face's rounding to bytes


@pytest.mark.parametrize("place", [(-5, 10, 12, 30), (0, 0, 96, 120), (80, 100, 96, 120)])
def test_cuts_at_the_frames_edge_like_own_face(place: tuple[int, int, int, int]) -> None:
    top, left, bottom, right = place
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (1, 96, 120, 3)).astype(
        np.uint8
    )  # harder than a face: each pixel is its own
    labels = np.zeros((1, 96, 120), np.uint8)
    labels[0, max(top, 0) : bottom, left:right] = 1
    squares, _ = face_squares(torch.from_numpy(labels)[None], 1, 1)
    cut = (cut_faces(as_video(frames)[0].transpose(0, 1), squares[0, 0]) + 1) * 127.5
    expected = own_face(frames, labels == 1, 1)
    assert expected is not None
    assert np.abs(cut[0].permute(1, 2, 0).numpy() - expected).max() < 0.6


def test_only_pixels_of_the_faces_that_count_are_moved(estimate: Estimate, embed: FaceNetwork) -> None:
    video = estimate.video.clone().requires_grad_()
    loss_of(replace(estimate, video=video), embed).sum().backward()
    assert video.grad is not None and video.grad.isfinite().all()
    moved = video.grad.abs().sum(1) > 0  # [B,T,H,W]
    squares, _ = face_squares(estimate.label_map, SLOTS, MIN_PX)
    inside = torch.zeros_like(moved)
    for b, k in ((0, 0), (0, 1), (1, 0)):
        for t in range(3):
            if b == 0 and k == 1 and t == 1:
                continue  # hidden there
            x, y, side = squares[b, k, t].tolist()
            reach = side / 2 + 2  # of the bicubic's kernel
            rows, columns = (slice(round(c - reach), round(c + reach) + 1) for c in (y, x))
            assert moved[b, t, rows, columns].float().mean() > 0.5
            inside[b, t, rows, columns] = True
    assert not moved[~inside].any()


@pytest.mark.parametrize("case", ["nobody", "no cast", "no reference", "small", "noisy", "one frame"])
def test_is_zero_and_finite_where_nothing_counts(case: str, estimate: Estimate, embed: FaceNetwork) -> None:
    video = estimate.video.clone().requires_grad_()
    changes = {
        "nobody": {"label_map": torch.zeros_like(estimate.label_map)},
        "no cast": {"cast_mask": torch.zeros_like(estimate.cast_mask)},
        "no reference": {"reference_mask": torch.zeros_like(estimate.reference_mask)},
        "noisy": {"sigma": torch.full((3,), BELOW)},
        "one frame": {"label_map": estimate.label_map[:, :1]},
        "small": {},
    }
    empty = replace(estimate, video=video, **changes[case])
    if case == "one frame":
        empty = replace(empty, video=video[:, :, :1])
    loss = loss_of(empty, embed, min_px=500 if case == "small" else MIN_PX)
    assert loss.shape == (3,) and loss.isfinite().all()
    if case == "one frame":  # no step from frame to frame, so no drift
        loss.sum().backward()
        assert loss[0] > 0 and video.grad is not None and video.grad.isfinite().all()
    else:
        assert not loss.any()


def test_a_nameless_slot_changes_nothing(estimate: Estimate, embed: FaceNetwork) -> None:
    stray = estimate.label_map.clone()
    stray[:, :, :40, :40] = 3  # a region of the spare slot, which nobody of the cast has
    torch.testing.assert_close(loss_of(replace(estimate, label_map=stray), embed), loss_of(estimate, embed))


def test_its_gradient_makes_a_face_more_like_its_references(
    estimate: Estimate, embed: FaceNetwork, references: F32, face_home: Path
) -> None:
    """Pixels that follow the loss: ONNX Runtime, which knows nothing of it, must see the other person come."""
    wrong = one(estimate, 1)  # the face of the first person, the references of the second
    wrong = replace(wrong, video=wrong.video[:, :, :1], label_map=wrong.label_map[:, :1])
    labels, target = wrong.label_map[0].numpy(), references[1, 0]

    def seen(video: torch.Tensor) -> float:
        frames: U8 = ((video[0].permute(1, 2, 3, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
        face = own_face(frames[:1], labels[:1] == 1, MIN_PX)
        assert face is not None
        return float(recogniser_for(PACK, face_home).embed(face[None])[0][0] @ target)

    before = seen(wrong.video)
    video = wrong.video.clone().requires_grad_()
    optimizer = torch.optim.Adam([video], lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        loss_of(replace(wrong, video=video), embed).sum().backward()
        optimizer.step()
    after = seen(video.detach().clamp(-1, 1))
    assert (video.detach() - wrong.video).abs().max() <= 0.11  # an eighteenth of the range
    assert before < 0.6 and after > before + 0.3
