"""What DeepSpeed holds of weights, gradients and optimizer on one GPU, by ZeRO stage.

With t trained and f frozen numbers, m bytes of a number as the model computes it (2 in bf16, 4 in fp32), N ranks
and AdamW's two fp32 moments (Rajbhandari et al. 2020, arXiv 1910.02054; counted in DeepSpeed 0.19):

| stage | weights | fp32 master | moments | gradients |
|---|---|---|---|---|
| 0, fp32 | 4 (t+f) | – (the weights themselves) | 8 t | 4 t |
| 0, bf16 | 2 (t+f) | 4 t | 8 t | 2 t |
| 1 | m (t+f) | 4 t/N | 8 t/N | m t during backward, then m t/N |
| 2 | m (t+f) | 4 t/N | 8 t/N | m t/N |
| 3 | m (t+f)/N and small weights whole | 4 t/N | 8 t/N | m t/N, kept all the time |

A master is kept in fp32 training as well, from stage 1 on. While the optimizer steps, a mixed-precision gradient
becomes fp32 (4 bytes) and AdamW holds one more fp32 number each, for all that is stepped at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import EngineConfig
from pipeline.training.zero_config import reduce_bucket

MAX_LIVE = 1_000_000_000  # numbers; stage 3 keeps so many gathered at most, and steps so many at once
PERSISTENT = 100_000  # stage 3 leaves weights up to so many numbers whole on each rank


@dataclass(frozen=True)
class Counts:
    """Numbers, not bytes. trained, frozen: together all; persistent: in weights that stage 3 leaves whole;
    quantised: those of the frozen ones that are; quantised_bytes: what these take."""

    trained: int
    frozen: int
    persistent: int
    quantised: int = 0
    quantised_bytes: int = 0

    @property
    def total(self) -> int:
        return self.trained + self.frozen

    def frozen_bytes(self, size: int) -> int:
        """Of all frozen weights, where one that is not quantised takes ``size``."""
        return size * (self.frozen - self.quantised) + self.quantised_bytes


@dataclass(frozen=True)
class Bytes:
    """Bytes on one GPU (``host``: in its share of the machine's memory). whole: weights that stage 3 leaves
    whole; gathered: at most, during its passes; backward_gradients: at the end of a backward pass; kept_gradients:
    always; bucket: of communication, always in stage 3 and during backward below; step: what is there while the
    optimizer steps alone, gradients in it included."""

    trained: int
    frozen: int
    master: int
    moments: int
    whole: int
    gathered: int
    backward_gradients: int
    kept_gradients: int
    bucket: int
    step: int
    host: int


def states(counts: Counts, engine: EngineConfig, ranks: int) -> Bytes:
    """The table above in bytes, with offloading."""
    if engine.zero_stage == 0:
        return _whole(counts, engine)
    return _partitioned(counts, engine, ranks)


def _whole(counts: Counts, engine: EngineConfig) -> Bytes:
    trained, mixed = counts.trained, engine.dtype == "bf16"
    size = 2 if mixed else 4
    step = size * trained + 4 * trained + (4 * trained if mixed else 0)
    return Bytes(
        trained=size * trained,
        frozen=counts.frozen_bytes(size),
        master=4 * trained if mixed else 0,
        moments=8 * trained,
        whole=0,
        gathered=0,
        backward_gradients=size * trained,
        kept_gradients=0,
        bucket=0,
        step=step,
        host=0,
    )


def _partitioned(counts: Counts, engine: EngineConfig, ranks: int) -> Bytes:
    stage, size = engine.zero_stage, 2 if engine.dtype == "bf16" else 4
    share = -(-counts.trained // ranks)  # rounded up
    trained, frozen = size * counts.trained, counts.frozen_bytes(size)
    bucket, kept, at_once, whole, gathered = size * reduce_bucket(engine, counts.trained), 0, share, 0, 0
    gradients = trained if stage == 1 else size * share
    if stage == 3:
        whole = size * counts.persistent
        gathered = size * min(counts.total - counts.persistent, MAX_LIVE)
        trained, frozen = size * share, -(-frozen // ranks)
        kept, gradients = size * share, 0
        at_once = min(share, MAX_LIVE)
    converted = 4 * at_once if size == 2 else 0
    step = size * share * (stage < 3) + converted + 4 * at_once
    master, moments, host = 4 * share, 8 * share, 0
    if engine.offload_optimizer != "none":  # so is the step; gradients move there as reduced
        host = master + moments + step + kept
        master, moments, step, kept = 0, 0, 0, 0
        gradients = trained if stage == 1 else 0
    if engine.offload_parameters != "none" and stage == 3:
        host, trained, frozen = host + trained + frozen, 0, 0
    return Bytes(trained, frozen, master, moments, whole, gathered, gradients, kept, bucket, step, host)
