"""The plan of one training: what each GPU holds, when it holds most, and what would fit where.

Three moments are compared, for what is large in one is not there in another: the start of backward (every saved
activation, no gradient yet), its end (every gradient, no activation) and the optimizer's step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from data_prep.records import InputError
from pipeline.config import AdapterConfig, EngineConfig, IdentityConfig
from pipeline.memory import activations as saved
from pipeline.memory import weights
from pipeline.memory.activations import Tokens, Trained
from pipeline.memory.quantised import num_bytes
from pipeline.memory.states import PERSISTENT, Counts, states
from pipeline.memory.weights import Architecture

GIB = 2**30
CARDS = {24: 23.5, 48: 44.4, 80: 79.1, 141: 139.8}  # GB as sold: GiB that a process can have (nvidia-smi)
FRAGMENTED = 0.05  # of a card: what the allocator cannot use between tensors of different sizes
FRAMEWORK = int(
    1.2 * GIB
)  # CUDA context, kernels, NCCL's and cuBLAS's buffers; not derived, seen on A100 and H100
# bytes that torchao holds for each number while it makes a weight of so many bytes a number whole (measured, 0.18)
WHOLE = {("int8", 2): 10, ("int8", 4): 8, ("nf4", 2): 14, ("nf4", 4): 20}
GPUS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Beside:
    """What lies on a GPU beside the transformer. latent_numbers: of one sample; text_numbers: of its embeddings;
    resident: bytes of the codec and text encoder where their outputs are not cached."""

    latent_numbers: int
    text_numbers: int
    resident: int = 0


@dataclass(frozen=True)
class Training:
    """All that a plan depends on. trained_base: whether ``adapter`` applies; else identity modules alone learn."""

    arch: Architecture
    tokens: Tokens
    beside: Beside
    adapter: AdapterConfig
    identity: IdentityConfig | None
    engine: EngineConfig
    gpus: int
    trained_base: bool = True
    checkpointing: bool = True
    device: Literal["cuda", "cpu"] = "cuda"
    framework: int = FRAMEWORK


@dataclass(frozen=True)
class Plan:
    """Bytes on each GPU. rows: every part at its largest; moments: the sum at each; host: in host memory."""

    training: Training
    counts: Counts
    rows: Mapping[str, int]
    moments: Mapping[str, int]
    host: int

    @property
    def peak(self) -> int:
        """The most that is held at once."""
        return max(self.moments.values())

    def fits(self, card_gb: int) -> bool:
        """Whether it fits a card of CARDS, with room for what the allocator loses."""
        return self.peak <= CARDS[card_gb] * GIB * (1 - FRAGMENTED)


@dataclass(frozen=True)
class Suggestion:
    """The least that fits a card. changed: what differs from the plan that was asked for, in words."""

    card_gb: int
    plan: Plan = field(repr=False)
    changed: str = ""


def count(training: Training) -> Counts:
    """Trained and frozen numbers: the transformer's, a LoRA's, the identity network's."""
    base = training.arch.weights
    extra: tuple[weights.Weight, ...] = ()
    if training.adapter.kind == "lora" and training.trained_base:
        extra = weights.lora(base, training.adapter.targets, training.adapter.rank)
    network = training.identity
    arch = training.arch
    cells = arch.out_channels * math.prod(arch.patch)
    identity = weights.identity(network, arch.width, arch.layers, cells) if network else ()
    parts = ((base, _is_full(training)), (extra, True), (identity, training.adapter.train_identity))
    trained = sum(w.numel * w.copies for group, learns in parts if learns for w in group)
    total = sum(w.numel * w.copies for group, _ in parts for w in group)
    small = sum(w.numel * w.copies for group, _ in parts for w in group if w.numel <= PERSISTENT)
    if not trained:
        raise InputError(
            "nothing is trained: model.adapter.train_identity is false and the transformer frozen"
        )
    return Counts(trained, total - trained, small, *_quantised(training))


def _quantised(training: Training) -> tuple[int, int]:
    """Numbers in int8 or nf4, and their bytes."""
    engine = training.engine
    if engine.base_precision == "dtype":
        return 0, 0
    layers, size = weights.quantised(training.arch.weights), 2 if engine.dtype == "bf16" else 4
    numbers = sum(w.numel * w.copies for w in layers)
    return numbers, sum(num_bytes(w.shape, size, engine.base_precision) * w.copies for w in layers)


def _whole(training: Training) -> int:
    """Bytes while one quantised weight is made whole, at most."""
    engine, size = training.engine, 2 if training.engine.dtype == "bf16" else 4
    if engine.base_precision == "dtype":
        return 0
    largest = max(w.numel for w in weights.quantised(training.arch.weights))
    return largest * WHOLE[engine.base_precision, size]


def plan(training: Training) -> Plan:
    """What each GPU holds.

    Raises:
        InputError: nothing is trained, or the LoRA matches nothing.
    """
    counts, engine, tokens = count(training), training.engine, training.tokens
    held = states(counts, engine, training.gpus)
    learns = Trained(_is_full(training), *_adapted(training), every_input=engine.zero_stage == 3)
    number = saved.numbers(engine.dtype, training.device)
    acts = saved.activations(training.arch, tokens, learns, number, training.identity)
    sites = training.arch.layers // training.identity.every if training.identity else 0
    kept, running = acts.saved(training.arch.layers, sites, training.checkpointing)
    data = tokens.batch * (4 * 4 * training.beside.latent_numbers + 6 * training.beside.text_numbers)
    always = {
        "weights, trained": held.trained,
        "weights, frozen": held.frozen,
        "fp32 master weights": held.master,
        "optimizer moments": held.moments,
        "codec and text encoder": training.beside.resident,
        "latents and text": data,
        "framework": training.framework,
    }
    base = sum(always.values()) + held.kept_gradients + held.whole
    running += (whole := _whole(training))
    communication = held.bucket + held.gathered
    stays = held.bucket if engine.zero_stage == 3 else 0
    earlier = held.backward_gradients if engine.accumulation > 1 else 0
    moments = {
        "backward begins": base + communication + kept + running + earlier,
        "backward ends": base + communication + running + held.backward_gradients,
        "optimizer steps": base + stays + held.step,
    }
    rows = always | {
        "gradients": held.backward_gradients + held.kept_gradients,
        "activations, kept": kept,
        "activations, of one block": running - whole,
        **({"a quantised weight, whole": whole} if whole else {}),
        "ZeRO's buffers and whole weights": communication + held.whole,
        "while the optimizer steps": held.step,
    }
    return Plan(training, counts, rows, moments, held.host)


def suggestions(training: Training) -> Iterator[Suggestion]:
    """For each card the fewest GPUs, then the lowest stage, that fit with the same samples per GPU; without any,
    the same with checkpointing, then with the optimizer on the host, if those are off."""
    for card in CARDS:
        found = next((s for s in _ladder(training, card) if s.plan.fits(card)), None)
        if found:
            yield found


def _ladder(training: Training, card: int) -> Iterator[Suggestion]:
    engine = training.engine
    offloaded = replace(engine, offload_optimizer="cpu")
    steps = [(training.checkpointing, engine, "")]
    if not training.checkpointing:
        steps.append((True, engine, "checkpointing"))
    if engine.offload_optimizer == "none":
        steps.append((True, offloaded, "checkpointing, optimizer on the host"))
    for checkpointing, changed, words in steps:
        for gpus in GPUS:
            for stage in (0, 1, 2, 3):
                if stage == 3 and changed.base_precision != "dtype":
                    continue
                if stage < 3 and changed.offload_parameters != "none":
                    continue
                if stage == 0 and changed.offload_optimizer != "none":
                    continue
                candidate = replace(
                    training,
                    engine=replace(changed, zero_stage=stage),
                    gpus=gpus,
                    checkpointing=checkpointing,
                )
                yield Suggestion(card, plan(candidate), words)


def _is_full(training: Training) -> bool:
    return training.adapter.kind == "full" and training.trained_base


def _adapted(training: Training) -> tuple[tuple[str, ...], int]:
    adapter = training.adapter
    return (adapter.targets, adapter.rank) if adapter.kind == "lora" and training.trained_base else ((), 0)
