"""A frozen base in 8 or 4 bits under a LoRA: its blocks' linear layers, quantised by torchao, never by us.

int8 is symmetric with a scale for each row; nf4 is QLoRA's (Dettmers et al. 2023, arXiv 2305.14314, §3): 16
quantiles of a normal distribution, a scale for each 64 weights, the scales themselves in 8 bits. torchao's tensors
are plain PyTorch operations, the same on a CPU and on CUDA. Its own product of an int8 weight keeps a whole copy in
the activations' precision until backward, so that without checkpointing nothing would be won (seen in 0.18); the
product here keeps the quantised weight alone and makes it whole once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, Self, cast

import torch
from torch import nn

from data_prep.records import InputError
from pipeline.memory.quantised import NF4_BLOCK, NF4_SCALES, BasePrecision, is_quantised


def check_installed(base_precision: BasePrecision) -> None:
    """Raise InputError where the library that quantises is not there."""
    if base_precision != "dtype" and find_spec("torchao") is None:
        raise InputError(
            f"engine.base_precision={base_precision}: torchao, which quantises, is not installed; run pip install "
            "-e '.[quantised]', or pip install torchao, or set it to dtype"
        )


def quantise(transformer: nn.Module, base_precision: BasePrecision) -> None:
    """Quantise the blocks' linear layers in place, one after the other, on the GPU that this process has chosen, if
    any; biases and all else stay. Deterministic: every rank has the same. Nothing for ``dtype``.

    Raises:
        InputError: torchao is not installed.
    """
    if base_precision == "dtype":
        return
    check_installed(base_precision)
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    for parent, name in list(
        _layers(transformer)
    ):  # of names: a layer in the list would not be freed in its turn
        linear = cast("nn.Linear", getattr(parent, name)).to(device)
        if base_precision == "int8" or linear.weight.numel() % NF4_BLOCK == 0:
            setattr(parent, name, QuantisedLinear(linear, base_precision))


def _layers(transformer: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for path, module in transformer.named_modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and is_quantised(f"{path}.{name}"):
                yield module, name


class QuantisedLinear(nn.Linear):
    """A linear layer whose frozen weight is a quantised tensor of torchao."""

    def __init__(self, linear: nn.Linear, base_precision: BasePrecision) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        weight = _quantised(linear.weight.detach().contiguous(), base_precision)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = linear.bias
        self._mark()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """As when the module moves to a device: the weight is made anew there, as PyTorch would exchange it with
        its copy, which it cannot while DeepSpeed looks at it, and drop the mark."""
        weight = self.weight
        self._parameters["weight"] = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.weight = nn.Parameter(fn(weight), requires_grad=False)
        self._mark()
        return self

    def _mark(self) -> None:
        """DeepSpeed's own mark of weights that it need not send to the other ranks: it would send bytes, which
        these tensors do not give, and each rank has the same."""
        self.weight.ds_optim_param = True  # type: ignore[attr-defined]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out], in autocast's precision where that is on."""
        kind = input.device.type
        if torch.is_autocast_enabled(kind):
            input = input.to(torch.get_autocast_dtype(kind))
        product: torch.Tensor = _Product.apply(input, self.weight)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(product.dtype)


class _Product(torch.autograd.Function):
    """``input @ weight.T`` with a frozen weight, of which backward keeps what is quantised."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return nn.functional.linear(input, whole(weight).to(input.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradients[0] @ whole(weight).to(gradients[0].dtype), None


def whole(weight: torch.Tensor) -> torch.Tensor:
    """A quantised weight as plain numbers, in the precision that it had."""
    quantised: Any = weight
    nf4 = hasattr(quantised, "get_original_weight")
    plain: torch.Tensor = quantised.get_original_weight() if nf4 else quantised.dequantize()
    return plain


def _quantised(weight: torch.Tensor, base_precision: BasePrecision) -> torch.Tensor:
    from torchao.quantization import Int8Tensor, PerRow, to_nf4

    scales = math.gcd(weight.numel() // NF4_BLOCK, NF4_SCALES)
    nf4 = base_precision == "nf4"
    made = to_nf4(weight, NF4_BLOCK, scales) if nf4 else Int8Tensor.from_hp(weight, granularity=PerRow())
    return cast("torch.Tensor", made)
