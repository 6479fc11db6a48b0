"""Each loss against a slow loop that follows its definition, and at the edges where such losses break."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pipeline.config import LossConfig
from pipeline.objective import losses
from pipeline.objective.losses import Prediction

B, N, C, T, H, W = 3, 3, 4, 2, 3, 5


@pytest.fixture
def prediction() -> Prediction:
    generator = torch.Generator().manual_seed(0)
    coverage = torch.zeros(B, N, T, H, W)
    coverage[0, 0, :, :2, :2] = 1.0  # a large face
    coverage[0, 1, 1, 2, 4] = 0.25  # a small one, partly in its cell
    coverage[1, 2, 0, 1, 1] = 0.5
    logits = torch.randn(2, B, T * H * W, N + 1, generator=generator)
    logits[:, 1, :, 1:3] = -math.inf  # sample 1 has an empty first and second slot
    return Prediction(
        velocity=torch.randn(B, C, T, H, W, generator=generator),
        target=torch.randn(B, C, T, H, W, generator=generator),
        counted=torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]),  # sample 1 has an anchor
        coverage=coverage,
        token_coverage=coverage.flatten(2),
        routing=tuple(logits),
        takes_mask=torch.tensor([True, True, True]),
    )


def slow_mask(p: Prediction) -> float:
    total = 0.0
    for b in range(B):
        characters = []
        for n in range(N):
            above = below = 0.0
            for t in (t for t in range(T) if p.counted[b, t] > 0):
                for y in range(H):
                    for x in range(W):
                        error = sum(
                            (p.velocity[b, c, t, y, x] - p.target[b, c, t, y, x]).item() ** 2
                            for c in range(C)
                        )
                        above += p.coverage[b, n, t, y, x].item() * error / C
                        below += p.coverage[b, n, t, y, x].item()
            if below > 0:
                characters.append(above / below)
        if characters and p.takes_mask[b]:
            total += sum(characters) / len(characters)
    return total / B


def slow_routing(p: Prediction) -> float:
    total = 0.0
    for logits in p.routing:
        for b in range(B):
            classes = []
            for k in range(N + 1):
                above = below = 0.0
                for token in range(T * H * W):
                    row = p.token_coverage[b, :, token].tolist()
                    share = [1 - sum(row), *row][k]
                    if share > 0:
                        scores = logits[b, token].tolist()
                        log_sum = math.log(sum(math.exp(s) for s in scores))
                        above += share * (log_sum - scores[k])
                        below += share
                if below > 0:
                    classes.append(above / below)
            total += sum(classes) / len(classes)
    return total / B / len(p.routing)


def test_mask_loss_is_its_definition(prediction: Prediction) -> None:
    assert losses.mask(prediction).mean().item() == pytest.approx(slow_mask(prediction), rel=1e-5)


def test_mask_loss_takes_only_the_samples_it_is_told(prediction: Prediction) -> None:
    some = replace(prediction, takes_mask=torch.tensor([False, True, True]))
    assert losses.mask(some).mean().item() == pytest.approx(slow_mask(some), rel=1e-5)
    none = replace(prediction, takes_mask=torch.zeros(B, dtype=torch.bool))
    assert losses.mask(none).mean().item() == 0.0


def test_mask_loss_weighs_a_small_face_as_much_as_a_large_one(prediction: Prediction) -> None:
    flat = replace(prediction, velocity=torch.zeros(1, C, T, H, W), target=torch.zeros(1, C, T, H, W))
    flat = replace(flat, coverage=prediction.coverage[:1], takes_mask=torch.tensor([True]))
    large, small = flat.velocity.clone(), flat.velocity.clone()
    large[..., :2, :2] = 1.0
    small[..., 1, 2, 4] = 1.0
    both = [losses.mask(replace(flat, velocity=v)).mean().item() for v in (large, small)]
    assert both == pytest.approx([0.5, 0.5])


def test_routing_loss_is_its_definition(prediction: Prediction) -> None:
    assert losses.routing(prediction).mean().item() == pytest.approx(slow_routing(prediction), rel=1e-5)


def test_diffusion_loss_is_the_mean_squared_error(prediction: Prediction) -> None:
    error = (prediction.velocity - prediction.target).square()
    expected = torch.stack([error[0].mean(), error[1, :, 1:].mean(), error[2].mean()])  # all but the anchor
    torch.testing.assert_close(losses.diffusion(prediction), expected)
    alone = replace(prediction, counted=torch.zeros(B, T))
    assert losses.diffusion(alone).tolist() == [0.0] * B


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_losses_are_finite_with_gradients_where_nobody_is_seen(name: str, prediction: Prediction) -> None:
    velocity = prediction.velocity.clone().requires_grad_()
    logits = prediction.routing[0].clone().requires_grad_()
    empty = replace(
        prediction,
        velocity=velocity,
        routing=(logits,),
        coverage=torch.zeros_like(prediction.coverage),
        token_coverage=torch.zeros_like(prediction.token_coverage),
    )
    for case in (empty, replace(prediction, velocity=velocity, routing=(logits,))):
        loss = losses.LOSSES[name](case)
        assert loss.shape == (B,) and loss.isfinite().all()
        loss.sum().backward() if loss.requires_grad else None
    for leaf in (velocity, logits):
        assert leaf.grad is None or leaf.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_the_loss_of_a_sample_does_not_depend_on_its_batch(name: str, prediction: Prediction) -> None:
    singles = []
    for b in range(B):
        at = slice(b, b + 1)
        one = Prediction(
            prediction.velocity[at],
            prediction.target[at],
            prediction.counted[at],
            prediction.coverage[at],
            prediction.token_coverage[at],
            tuple(logits[at] for logits in prediction.routing),
            prediction.takes_mask[at],
        )
        singles.append(losses.LOSSES[name](one).item())
    assert losses.LOSSES[name](prediction).tolist() == pytest.approx(singles, rel=1e-5)


def test_router_accuracy_counts_each_class_alike(prediction: Prediction) -> None:
    lazy = torch.zeros(B, T * H * W, N + 1)
    lazy[..., 0] = 1.0  # nobody, everywhere
    accuracy = losses.router_accuracy(replace(prediction, routing=(lazy,)))
    # sample 0: nobody right, the large face wrong (the small one covers no cell by half); 1: a tie goes to nobody
    assert accuracy.tolist() == pytest.approx([0.5, 1.0, 1.0])
    truth = losses._with_nobody(prediction.token_coverage).transpose(1, 2)
    assert losses.router_accuracy(replace(prediction, routing=(truth, truth))).tolist() == [1.0] * B


def test_without_identity_layers_there_is_no_routing_loss(prediction: Prediction) -> None:
    bare = replace(prediction, routing=())
    assert losses.routing(bare).tolist() == losses.router_accuracy(bare).tolist() == [0.0] * B


def test_every_loss_has_its_weight() -> None:
    assert all(isinstance(getattr(LossConfig(), name), float) for name in losses.LOSSES)
