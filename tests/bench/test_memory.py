"""The memory plan against what real ranks hold: a small Wan transformer under our engine, counted byte by byte.

Run by ``make bench``. Two processes for each ZeRO stage, full and LoRA, with and without checkpointing; every live
storage is counted once after an update and at the end of backward, and every storage that autograd saves.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from pipeline.config import AdapterConfig, EngineConfig, OptimizerConfig
from pipeline.memory.activations import Tokens
from pipeline.memory.plan import Beside, Plan, Training, plan
from pipeline.memory.states import states
from pipeline.memory.weights import architecture
from pipeline.quantised import quantise
from pipeline.ranks.joining import meet
from pipeline.ranks.launch import launch
from pipeline.ranks.rank import Rank
from pipeline.training.engine import Engine, join, leave
from pipeline.training.optimizer import adamw

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

RANKS, FRAMES, HEIGHT, WIDTH, TEXT = 2, 3, 6, 8, 12
WAN = {
    "patch_size": (1, 1, 1),
    "num_attention_heads": 6,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 96,
    "freq_dim": 64,
    "ffn_dim": 1024,
    "num_layers": 3,
    "rope_max_seq_len": 64,
}
LORA = AdapterConfig(kind="lora", rank=16)


@dataclass(frozen=True)
class Case:
    """One training to count."""

    engine: EngineConfig
    adapter: AdapterConfig
    checkpointing: bool


@dataclass(frozen=True)
class Counted:
    """Bytes of one rank. stepped: after an update; gradients: how much more at the end of backward; saved: by
    autograd after a forward pass."""

    stepped: int
    gradients: int
    saved: int


class Objective(torch.nn.Module):
    """The transformer's mean square, as a loss; a batch is (latents, timesteps, text)."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        from diffusers import WanTransformer3DModel
        from peft import LoraConfig

        torch.manual_seed(0)
        self.transformer = WanTransformer3DModel(**WAN)
        if case.adapter.kind == "lora":
            self.transformer.requires_grad_(False)
            if case.engine.base_precision != "dtype":
                self.transformer.to(torch.bfloat16)
                quantise(self.transformer, case.engine.base_precision)
            targets = list(case.adapter.targets)
            self.transformer.add_adapter(LoraConfig(r=case.adapter.rank, target_modules=targets))
        if case.checkpointing:
            self.transformer.enable_gradient_checkpointing()

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        latents, timesteps, text = batch
        dtype = next(self.parameters()).dtype
        guess = self.transformer(latents.to(dtype), timesteps, text.to(dtype), return_dict=False)[0]
        return {"loss": (guess.float() - latents).square().mean()}


def live_bytes() -> int:
    """Of all tensors that Python can reach, each storage once."""
    gc.collect()
    sizes = {}
    for item in gc.get_objects():
        plain = isinstance(item, torch.Tensor) and not is_traceable_wrapper_subclass(item)
        if plain and item.device.type == "cpu":  # what quantised ones are made of is found by itself
            storage = item.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def saved_bytes(engine: Engine, module: torch.nn.Module, batch: Any) -> tuple[torch.Tensor, int]:
    """The loss, and the bytes that autograd keeps for it, weights and buffers not counted."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if is_traceable_wrapper_subclass(tensor):  # a quantised weight
            return tensor
        plain = (t for t in (*module.parameters(), *module.buffers()) if not is_traceable_wrapper_subclass(t))
        own = {t.untyped_storage().data_ptr() for t in plain}
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = engine.forward(batch)["loss"]
    return loss, sum(kept.values())


def train(rank: Rank, case: Case) -> int:
    """Two updates; what the second one holds is reported."""
    join(rank, meet(rank, 60, "a bench"), case.engine)
    before = live_bytes()
    module = Objective(case)
    parameters = [p for p in module.parameters() if p.requires_grad]
    engine = Engine(module, adamw([{"params": parameters, "lr": 1e-3}], OptimizerConfig()), case.engine, 1)
    for _ in range(2):
        batch = (torch.randn(1, 16, FRAMES, HEIGHT, WIDTH), torch.tensor([500.0]), torch.randn(1, TEXT, 96))
        loss, saved = saved_bytes(engine, module, batch)
        engine.backward(loss)
        del loss, batch
        backward = live_bytes()
        engine.step(1.0)
    stepped = live_bytes()
    rank.report((rank.index, Counted(stepped - before, backward - stepped, saved)))
    leave()
    return 0


def planned(case: Case) -> Plan:
    """The same training on paper."""
    tokens = Tokens(1, FRAMES * HEIGHT * WIDTH, TEXT)
    arch = architecture("WanTransformer3DModel", WAN)
    return plan(
        Training(
            arch,
            tokens,
            Beside(0, 0),
            case.adapter,
            None,
            case.engine,
            RANKS,
            checkpointing=case.checkpointing,
            device="cpu",
            framework=0,
        )
    )


BF16 = EngineConfig(dtype="bf16", timeout_s=120)
CASES = [
    *(Case(replace(BF16, zero_stage=s), AdapterConfig(), checkpointing=s % 2 == 1) for s in (0, 1, 2, 3)),
    *(Case(replace(BF16, zero_stage=s), LORA, checkpointing=s % 2 == 0) for s in (0, 1, 2, 3)),
    Case(replace(BF16, zero_stage=2, dtype="fp32"), AdapterConfig(), checkpointing=True),
    Case(replace(BF16, zero_stage=3, dtype="fp32"), LORA, checkpointing=False),
    Case(replace(BF16, zero_stage=2, base_precision="int8"), LORA, checkpointing=False),
    Case(replace(BF16, zero_stage=1, base_precision="nf4"), LORA, checkpointing=True),
]


def name(case: Case) -> str:
    kept = "checkpointed" if case.checkpointing else "all-kept"
    precision = case.engine.dtype if case.engine.base_precision == "dtype" else case.engine.base_precision
    return f"zero{case.engine.zero_stage}-{precision}-{case.adapter.kind}-{kept}"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_ranks_hold_what_was_planned(case: Case, tmp_path: Path) -> None:
    reports: list[Any] = []
    assert (
        launch(
            RANKS,
            train,
            (case,),
            tmp_path / "logs",
            reports.append,
            ("pipeline.training.engine", "diffusers"),
        )
        == 0
    )
    made = planned(case)
    held = states(made.counts, case.engine, RANKS)
    stepped = held.trained + held.frozen + held.master + held.moments + held.whole + held.kept_gradients
    bucket = held.bucket * (case.engine.zero_stage == 3)  # 1 or 2 GB: left out, it would hide everything else
    gradients = held.backward_gradients
    if case.engine.zero_stage == 1:  # all of them during backward, reduced to a share at its end
        gradients = -(-gradients // RANKS)
    rows = {"states": stepped, "gradients": gradients, "activations": made.rows["activations, kept"]}
    positions = (
        2 * 4 * FRAMES * HEIGHT * WIDTH * 64
    )  # checkpointing keeps tensors inside tuples unseen by the hooks
    unseen = positions * case.checkpointing
    print(f"\n{name(case)}: ", end="")
    for _, counted in reports:
        seen = {
            "states": counted.stepped - bucket,
            "gradients": counted.gradients,
            "activations": counted.saved + unseen,
        }
        for part, expected in rows.items():
            print(f"{part} {expected / 1e6:.2f}/{seen[part] / 1e6:.2f} MB  ", end="")
            assert seen[part] == pytest.approx(expected, rel=0.1, abs=10_000), part
