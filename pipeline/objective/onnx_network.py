"""An ONNX network as a frozen torch module that gradients pass through, on any device.

ONNX Runtime answers without gradients. Here each node of the graph becomes one torch call of a ``torch.fx`` graph;
initialisers become buffers, so that no optimizer and no ZeRO stage ever sees them. Only what face recognisers are
made of is known (MobileFaceNet, IResNet); one more operator is one function and one line in ``_OPERATORS``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx, nn
from torch.nn import functional

from data_prep.records import InputError


class UnsupportedOperatorError(Exception):
    """An operator, or a use of one, that no torch call is written for; the text names both."""


@dataclass
class _Translation:
    """A graph half way: ``values`` are the torch nodes by their ONNX names, ``constants`` the arrays."""

    graph: fx.Graph = field(default_factory=fx.Graph)
    root: nn.Module = field(default_factory=nn.Module)
    values: dict[str, fx.Node] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)

    def constant(self, name: str, what: str) -> torch.Tensor:
        if name not in self.constants:
            raise UnsupportedOperatorError(f"{what} with a computed {name!r} (only stored weights are known)")
        return self.constants[name]

    def stored(self, value: torch.Tensor) -> fx.Node:
        """A buffer that holds ``value``, and the node that reads it."""
        name = f"weight_{len(list(self.root.buffers()))}"
        self.root.register_buffer(name, value.contiguous())
        return self.graph.get_attr(name)

    def input(self, name: str) -> fx.Node:
        if name not in self.values:
            self.values[name] = self.stored(self.constant(name, "an input"))
        return self.values[name]


_Attributes = dict[str, Any]
_Translate = Callable[[_Translation, Any, _Attributes], fx.Node]


def read_graph(path: Path) -> Any:
    """The ``onnx.GraphProto`` of a file; raises InputError where there is none to be read."""
    try:
        return onnx.load(str(path)).graph
    except Exception as error:  # protobuf's DecodeError, onnx's own and OSError share no base
        raise InputError(
            f"{path}: no ONNX network could be read ({type(error).__name__}: {error}); install it again"
        ) from error


def torch_network(graph: Any) -> fx.GraphModule:
    """The torch module of an ``onnx.GraphProto`` with one input and one output, each with the batch in front.

    A batch size that is written into the graph (a Reshape to one row) is undone: any number of pictures goes in.

    Raises:
        UnsupportedOperatorError: an operator that is not known here.
        InputError: the graph has other inputs or outputs.
    """
    building = _Translation()
    for tensor in graph.initializer:
        building.constants[tensor.name] = torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))
    inputs = [entry.name for entry in graph.input if entry.name not in building.constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise InputError(
            f"network {graph.name!r}: {len(inputs)} inputs and {len(graph.output)} outputs; expected one of each, "
            "pictures in and embeddings out"
        )
    building.values[inputs[0]] = building.graph.placeholder("pictures")
    for node in graph.node:
        _translate(building, node)
    building.graph.output(building.input(graph.output[0].name))
    network = fx.GraphModule(building.root, building.graph)
    for name, weight in list(
        network.named_buffers()
    ):  # it copies buffers as ones that checkpoints would save
        delattr(network, name)
        network.register_buffer(name, weight, persistent=False)
    return network


def _translate(building: _Translation, node: Any) -> None:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Constant" and "value" in attributes:
        value = np.array(onnx.numpy_helper.to_array(attributes["value"]))
        building.constants[node.output[0]] = torch.from_numpy(value)
    elif node.op_type in _OPERATORS and node.domain in ("", "ai.onnx"):
        building.values[node.output[0]] = _OPERATORS[node.op_type](building, node, attributes)
    else:
        raise UnsupportedOperatorError(f"{node.op_type} (known are Constant, {', '.join(_OPERATORS)})")


def _expect(node: Any, attributes: _Attributes, **allowed: object) -> None:
    """Raises UnsupportedOperatorError where an attribute that is set differs from the only value known."""
    for name, value in allowed.items():
        if name in attributes and attributes[name] != value:
            raise UnsupportedOperatorError(
                f"{node.op_type} with {name}={attributes[name]!r} (only {value!r})"
            )


def _conv(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
    weight = building.constant(node.input[1], "Conv")
    _expect(node, attributes, auto_pad=b"NOTSET")
    if weight.ndim != 4:
        raise UnsupportedOperatorError(f"Conv over {weight.ndim - 2} axes (only 2)")
    pictures = building.input(node.input[0])
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    padding = (top, left)
    if (top, left) != (bottom, right):  # torch pads both sides alike; TFLite's networks do not
        pictures = building.graph.call_function(functional.pad, (pictures, (left, right, top, bottom)))
        padding = (0, 0)
    bias = building.stored(building.constant(node.input[2], "Conv")) if len(node.input) > 2 else None
    strides = tuple(attributes.get("strides", (1, 1)))
    dilations = tuple(attributes.get("dilations", (1, 1)))
    group = attributes.get("group", 1)
    arguments = (pictures, building.stored(weight), bias, strides, padding, dilations, group)
    return building.graph.call_function(functional.conv2d, arguments)


def _prelu(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
    slope = building.constant(node.input[1], "PRelu")
    if slope.numel() > 1 and slope.shape[-2:].numel() > 1 and slope.ndim > 1:
        raise UnsupportedOperatorError(
            f"PRelu with a slope of shape {list(slope.shape)} (only one per channel)"
        )
    arguments = (building.input(node.input[0]), building.stored(slope.flatten()))
    return building.graph.call_function(functional.prelu, arguments)


def _batch_norm(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
    _expect(node, attributes, training_mode=0)
    scale, bias, mean, variance = (
        building.stored(building.constant(name, "BatchNormalization")) for name in node.input[1:5]
    )
    pictures, eps = building.input(node.input[0]), attributes.get("epsilon", 1e-5)
    arguments = (pictures, mean, variance, scale, bias, False, 0.0, eps)
    return building.graph.call_function(functional.batch_norm, arguments)


def _gemm(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
    _expect(node, attributes, alpha=1.0, beta=1.0, transA=0)
    weight = building.constant(node.input[1], "Gemm")
    weight = weight if attributes.get("transB", 0) else weight.T
    bias = building.stored(building.constant(node.input[2], "Gemm")) if len(node.input) > 2 else None
    arguments = (building.input(node.input[0]), building.stored(weight), bias)
    return building.graph.call_function(functional.linear, arguments)


def _reshape(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
    shape = building.constant(node.input[1], "Reshape").tolist()
    if len(shape) != 2:
        raise UnsupportedOperatorError(f"Reshape to {shape} (only to rows, one per picture)")
    return building.graph.call_function(torch.flatten, (building.input(node.input[0]), 1))


def _flatten(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
    _expect(node, attributes, axis=1)
    return building.graph.call_function(torch.flatten, (building.input(node.input[0]), 1))


def _transpose(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
    order = tuple(attributes.get("perm", ()))
    if order[:1] != (0,):
        raise UnsupportedOperatorError(f"Transpose with perm={list(order)} (the batch must stay in front)")
    return building.graph.call_function(torch.permute, (building.input(node.input[0]), order))


def _same(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
    return building.input(node.input[0])


def _pair(call: Callable[[Any, Any], Any]) -> _Translate:
    def translate(building: _Translation, node: Any, attributes: _Attributes) -> fx.Node:
        return building.graph.call_function(call, tuple(building.input(name) for name in node.input))

    return translate


_OPERATORS: dict[str, _Translate] = {
    "Add": _pair(operator.add),
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Dropout": _same,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "Identity": _same,
    "Mul": _pair(operator.mul),
    "PRelu": _prelu,
    "Reshape": _reshape,
    "Sub": _pair(operator.sub),
    "Transpose": _transpose,
}
