"""Which weights a quantised base has in int8 or nf4, and what they take; without torch, for plans."""

from __future__ import annotations

import math
from typing import Literal

BasePrecision = Literal["dtype", "int8", "nf4"]
NF4_BLOCK = 64  # weights with one scale
NF4_SCALES = 256  # scales, at most, with one factor


def is_quantised(layer: str) -> bool:
    """Whether a linear layer of that dotted name is: of those in blocks, all but what makes a norm's scale and
    shift of the noise level; diffusers leaves the same alone in ``_skip_layerwise_casting_patterns``."""
    return "blocks." in layer and "norm" not in layer


def num_bytes(shape: tuple[int, ...], size: int, base_precision: BasePrecision) -> int:
    """Bytes of a quantised weight [out, in] whose numbers had ``size`` bytes, scales included."""
    numel = math.prod(shape)
    if base_precision == "int8":
        return numel + 5 * shape[0]  # of each row an fp32 scale and an int8 zero point
    if base_precision == "nf4" and numel % NF4_BLOCK == 0:
        scales = numel // NF4_BLOCK
        factors = scales // math.gcd(scales, NF4_SCALES)
        return (
            numel // 2 + scales + size * (factors + 1 + 16)
        )  # beside, the scales' mean and the table of quantiles
    return numel * size
