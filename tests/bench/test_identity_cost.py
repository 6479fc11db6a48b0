"""What identity attention costs in time and memory, and what our step costs beside a bare diffusers loop.

Run by ``make bench`` on an idle machine; figures are printed. All sides of a comparison are taken in one run, in
turns, so that a slower minute meets all of them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from pipeline import adapters
from pipeline import model as models
from pipeline.batch import Batch
from pipeline.config import FamilyConfig, IdentityConfig, LossConfig, ModelConfig, TinyConfig
from pipeline.identity.attention import CastContext, IdentityAttention
from pipeline.model import Model
from pipeline.objective import objective
from tests.plain_attention import all_at_once, fused_per_character, saved_bytes

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

REPEATS = 9
FRAMES, HEIGHT, WIDTH = 5, 128, 192  # 5 x 8 x 12 = 480 tokens of 16 pixels
SMALL = TinyConfig(num_layers=8, num_heads=8, head_dim=64, ffn_dim=2048)  # 512 wide, 36 M parameters
EVERY = 2  # identity in every second block, as ConsisID (arXiv 2411.17440)


def times_of(works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of processor time, the works in turns; each has run once before."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(REPEATS + 1):
        for name, work in works.items():
            start_s = time.process_time()
            work()
            if repeat:
                times[name].append(time.process_time() - start_s)
    return times


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    """Median over the turns."""
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))


@pytest.mark.parametrize("num_characters", [2, 8])
def test_one_layer(num_characters: int) -> None:
    """1,024 wide, 2,048 tokens, 33 tokens per character: forward and backward."""
    torch.manual_seed(0)
    attention = IdentityAttention(width=1024, token_width=192, num_heads=8)
    torch.nn.init.normal_(attention.to_out.weight, std=0.02)
    hidden = torch.randn(1, 2048, 1024, requires_grad=True)
    mask = torch.ones(1, num_characters, dtype=torch.bool)
    context = CastContext(torch.randn(1, num_characters, 33, 192, requires_grad=True), mask, torch.ones(1))
    forms = {
        "ours": attention,
        "all at once (before)": partial(all_at_once, attention),
        "fused per character": partial(fused_per_character, attention),
    }

    def both(form: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> None:
        added, logits = form(hidden, context)
        (added.square().sum() + logits.square().sum()).backward()

    times = times_of({name: partial(both, form) for name, form in forms.items()})
    before = "all at once (before)"
    kept = {name: saved_bytes(attention, form, hidden, context) for name, form in forms.items()}
    unit = hidden.numel() * hidden.element_size()
    print(f"\n{num_characters} characters")
    for name in forms:
        spent_s = statistics.median(times[name])
        print(f"  {name:22} {spent_s:.3f} s, keeps {kept[name] / unit:.1f} x the hidden states")
    assert kept["ours"] < kept[before] and kept["ours"] < kept["fused per character"]
    assert ratio(times, "ours", before) <= 1.05


def batch_of() -> Batch:
    generator = torch.Generator().manual_seed(0)
    label_map = torch.zeros(1, FRAMES, HEIGHT, WIDTH, dtype=torch.uint8)
    label_map[..., 16:80, 16:80], label_map[..., 32:96, 112:176] = 1, 2
    faces = torch.nn.functional.normalize(torch.randn(1, 2, 4, 512, generator=generator), dim=-1)
    return Batch(
        video=torch.rand(1, 3, FRAMES, HEIGHT, WIDTH, generator=generator) * 2 - 1,
        label_map=label_map,
        references=faces,
        reference_mask=torch.ones(1, 2, 4, dtype=torch.bool),
        own_faces=faces[:, :, 0],
        own_mask=torch.ones(1, 2, dtype=torch.bool),
        cast_mask=torch.ones(1, 2, dtype=torch.bool),
        cast=(("anna", "ben"),),
        captions=("Anna talks to Ben in a garden.",),
        keys=("sample",),
        positions=torch.zeros(1, dtype=torch.long),
    )


def update(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()


def our_step(every: int, weights: LossConfig, batch: Batch) -> tuple[Model, Callable[[], None]]:
    """Our objective as training calls it; encoding included."""
    identity = IdentityConfig(every=every)
    config = ModelConfig(family=FamilyConfig(tiny=SMALL), identity=identity, losses=weights)
    model = models.create(config, [batch.video[0].transpose(0, 1)], seed=0)
    adapters.apply(
        model.transformer, model.identity, replace(config.adapter, train_identity=every == EVERY), 0
    )
    groups = adapters.trainable_groups(model.transformer, model.identity, config.adapter)
    made, optimizer = objective.build(config, model, seed=0), torch.optim.AdamW(groups)
    return model, lambda: update(made(batch)["loss"], optimizer)


def bare_step(model: Model) -> Callable[[], None]:
    """What a script on diffusers and torch does with the same transformer, its latents and text in memory."""
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel.from_config(model.transformer.config)  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW(transformer.parameters())
    channels = transformer.config.in_channels
    clean = torch.randn(1, channels, FRAMES, HEIGHT // 16, WIDTH // 16)
    text = torch.randn(1, SMALL.text_tokens, SMALL.text_dim)

    def step() -> None:
        sigma, noise = torch.rand(1), torch.randn_like(clean)
        noisy, target = (1 - sigma) * clean + sigma * noise, (noise - clean)[:, : SMALL.latent_channels]
        answer = transformer(noisy, sigma * 1000, text, return_dict=False)[0]
        update((answer - target).square().mean(), optimizer)

    return step


def test_a_step_beside_a_bare_loop() -> None:
    batch = batch_of()
    model, without = our_step(1000, LossConfig(routing=0.0), batch)
    _, with_identity = our_step(EVERY, LossConfig(), batch)
    works = {"bare": bare_step(model), "without identity": without, "with identity": with_identity}
    times = times_of(works)
    size = sum(p.numel() for p in model.transformer.parameters()) / 1e6
    print(
        f"\n{size:.0f} M parameters, identity in every {EVERY}nd of {SMALL.num_layers} blocks, 2 characters"
    )
    for name, spent_s in times.items():
        print(
            f"  {name:18} {statistics.median(spent_s):.2f} s a step, {ratio(times, name, 'bare'):.3f} of bare"
        )
    assert ratio(times, "without identity", "bare") <= 1.05
    assert ratio(times, "with identity", "bare") <= 1.15
