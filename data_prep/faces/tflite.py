"""Convert the small float networks that come as TFLite files to ONNX, which insightface loads.

NHWC becomes NCHW, the batch axis becomes symbolic, float16 weights are widened, and relu(x) + a·(x − |x|), which is
how some exporters write PReLU, becomes one node again. The output's bytes depend on the input's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from data_prep.faces.tflite_file import Array, Graph, Operator, read_graph

OPSET = 13
IR_VERSION = 8
SAME_PADDING = 0


class Conversion:
    """One conversion under way: the TFLite graph, and the ONNX nodes and constants emitted so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.values = {i: t.value for i, t in enumerate(graph.tensors) if t.value is not None}

    def emit(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = f"n{len(self.nodes)}_{kind.lower()}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def constant(self, value: Any, hint: str) -> str:
        """Add a constant; returns its name."""
        name = f"{hint}_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def shape(self, tensor: int) -> tuple[int, ...]:
        return self.graph.tensors[tensor].shape

    def weights(self, tensor: int) -> Array:
        """A constant tensor as float32, in TFLite's own layout."""
        return np.asarray(self.values[tensor], np.float32)

    def operand(self, tensor: int, rank: int) -> str:
        """The name of an input; a constant is laid out so that it broadcasts against NCHW."""
        if tensor not in self.values:
            return name_of(tensor)
        value = self.weights(tensor)
        if rank == 4 and value.ndim == 1 and value.size > 1:
            value = value.reshape(1, -1, 1, 1)
        elif rank == 4 and value.ndim in {3, 4}:
            value = np.moveaxis(value.reshape((1,) * (4 - value.ndim) + value.shape), 3, 1)
        return self.constant(value, "c")


Converter = Callable[[Conversion, Operator], None]
"""Emits the ONNX of one operator, whose output must be called ``name_of(operator.outputs[0])``."""


def convert(
    data: bytes, input_name: str = "input.1", custom: Mapping[str, Converter] | None = None
) -> onnx.ModelProto:
    """The TFLite file as a checked ONNX model with one input; outputs keep their names.

    ``custom`` gives converters of operators by name, in addition to CONVERTERS. Raises ValueError on an operator
    that neither has, and on fused activations.
    """
    graph = read_graph(data)
    state = Conversion(graph)
    prelus = _folded_prelus(graph)
    wanted = _needed(graph, prelus)
    converters = {**CONVERTERS, **(custom or {})}
    for operator in graph.operators:
        output = operator.outputs[0]
        if operator.kind == "DEQUANTIZE" and operator.inputs[0] in state.values:
            state.values[output] = state.weights(operator.inputs[0])
        elif output in wanted and output in prelus:
            source, slope = prelus[output]
            _emit_prelu(state, source, 2 * state.weights(slope), output)
        elif output in wanted:
            if operator.kind not in converters:
                raise ValueError(f"TFLite operator {operator.kind!r} has no converter")
            converters[operator.kind](state, operator)
    return _model(state, input_name)


def name_of(tensor: int) -> str:
    """The ONNX name of a TFLite tensor."""
    return f"t{tensor}"


def _model(state: Conversion, input_name: str) -> onnx.ModelProto:
    graph = state.graph
    names = {name_of(o): graph.tensors[o].name for o in graph.outputs}
    names[name_of(graph.inputs[0])] = input_name
    for node in state.nodes:
        for ends in (node.input, node.output):
            ends[:] = [names.get(end, end) for end in ends]
    onnx_graph = helper.make_graph(
        state.nodes,
        "tflite",
        [_value_info(input_name, graph.tensors[graph.inputs[0]].shape)],
        [_value_info(names[name_of(o)], graph.tensors[o].shape) for o in graph.outputs],
        state.constants,
    )
    model = helper.make_model(
        onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="tflite_onnx"
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _value_info(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    axes = ["N", shape[3], shape[1], shape[2]] if len(shape) == 4 else ["N", *shape[1:]]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, axes)


def _folded_prelus(graph: Graph) -> dict[int, tuple[int, int]]:
    """Outputs of relu(x) + a·(x − |x|), each with the tensors (x, a); the slope of the PReLU is 2a."""
    producers = {o: operator for operator in graph.operators for o in operator.outputs}

    def produced(tensor: int, kind: str) -> Operator | None:
        operator = producers.get(tensor)
        return operator if operator and operator.kind == kind else None

    found = {}
    for operator in graph.operators:
        if operator.kind != "ADD":
            continue
        for positive, negative in (operator.inputs, operator.inputs[::-1]):
            relu, product = produced(positive, "RELU"), produced(negative, "MUL")
            if not relu or not product:
                continue
            constant = [i for i in product.inputs if graph.tensors[i].value is not None]
            computed = [i for i in product.inputs if graph.tensors[i].value is None]
            difference = produced(computed[0], "SUB") if computed and constant else None
            magnitude = produced(difference.inputs[1], "ABS") if difference else None
            if difference and magnitude and {*difference.inputs[:1], *magnitude.inputs} == {*relu.inputs}:
                found[operator.outputs[0]] = (relu.inputs[0], constant[0])
    return found


def _needed(graph: Graph, prelus: Mapping[int, tuple[int, int]]) -> set[int]:
    """The tensors that the outputs depend on, with folded operators left out."""
    producers = {o: operator for operator in graph.operators for o in operator.outputs}
    needed: set[int] = set()
    stack = list(graph.outputs)
    while stack:
        tensor = stack.pop()
        if tensor not in needed and tensor in producers:
            needed.add(tensor)
            stack += prelus[tensor][:1] if tensor in prelus else producers[tensor].inputs
    return needed


def _padding(state: Conversion, op: Operator, kernel: tuple[int, int], strides: tuple[int, int]) -> list[int]:
    """ONNX pads [top, left, bottom, right] of TensorFlow's SAME (the odd pixel goes to the end) or VALID."""
    begin, end = [], []
    for size, width, stride in zip(state.shape(op.inputs[0])[1:3], kernel, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + width - size, 0)
        total = total if op.option(0, "b") == SAME_PADDING else 0
        begin.append(total // 2)
        end.append(total - total // 2)
    return begin + end


def _no_activation(op: Operator, field: int) -> None:
    if op.option(field, "b"):
        raise ValueError(f"TFLite operator {op.kind} carries fused activation {op.option(field, 'b')}")


def _convolution(state: Conversion, op: Operator) -> None:
    depthwise = op.kind == "DEPTHWISE_CONV_2D"
    _no_activation(op, 4 if depthwise else 3)
    weights = state.weights(op.inputs[1])
    kernel = (weights.shape[1], weights.shape[2])
    strides = (op.option(2, "i"), op.option(1, "i"))
    first_dilation = 5 if depthwise else 4
    dilations = [op.option(first_dilation + 1, "i", 1), op.option(first_dilation, "i", 1)]
    if dilations != [1, 1]:
        raise ValueError(f"TFLite operator {op.kind} is dilated by {dilations}")
    weights = weights.transpose(3, 0, 1, 2) if depthwise else weights.transpose(0, 3, 1, 2)
    inputs = [name_of(op.inputs[0]), state.constant(weights, "w")]
    inputs += [state.constant(state.weights(bias), "b") for bias in op.inputs[2:] if bias >= 0]
    state.emit(
        "Conv",
        inputs,
        name_of(op.outputs[0]),
        kernel_shape=list(kernel),
        strides=list(strides),
        group=state.shape(op.inputs[0])[3] if depthwise else 1,
        dilations=dilations,
        pads=_padding(state, op, kernel, strides),
    )


def _pool(state: Conversion, op: Operator) -> None:
    _no_activation(op, 5)
    strides, kernel = (op.option(2, "i"), op.option(1, "i")), (op.option(4, "i"), op.option(3, "i"))
    state.emit(
        "MaxPool" if op.kind == "MAX_POOL_2D" else "AveragePool",
        [name_of(op.inputs[0])],
        name_of(op.outputs[0]),
        kernel_shape=list(kernel),
        strides=list(strides),
        pads=_padding(state, op, kernel, strides),
    )


def _arithmetic(state: Conversion, op: Operator) -> None:
    _no_activation(op, 0)
    rank = len(state.shape(op.outputs[0]))
    inputs = [state.operand(tensor, rank) for tensor in op.inputs]
    state.emit(op.kind.capitalize(), inputs, name_of(op.outputs[0]))


def _elementwise(state: Conversion, op: Operator) -> None:
    kind = {"RELU": "Relu", "ABS": "Abs", "LOGISTIC": "Sigmoid"}[op.kind]
    state.emit(kind, [name_of(op.inputs[0])], name_of(op.outputs[0]))


def _prelu(state: Conversion, op: Operator) -> None:
    _emit_prelu(state, op.inputs[0], state.weights(op.inputs[1]), op.outputs[0])


def _emit_prelu(state: Conversion, source: int, slope: Array, output: int) -> None:
    slope_name = state.constant(slope.reshape(-1, 1, 1), "slope")
    state.emit("PRelu", [name_of(source), slope_name], name_of(output))


def _hard_swish(state: Conversion, op: Operator) -> None:
    source, output = name_of(op.inputs[0]), name_of(op.outputs[0])
    gate = state.emit("HardSigmoid", [source], output + "_hs", alpha=1 / 6, beta=0.5)
    state.emit("Mul", [source, gate], output)


def _pad(state: Conversion, op: Operator) -> None:
    pads = np.asarray(state.values[op.inputs[1]], np.int64)[[0, 3, 1, 2]]  # NHWC → NCHW
    pads_name = state.constant(np.concatenate([pads[:, 0], pads[:, 1]]), "pads")
    state.emit("Pad", [name_of(op.inputs[0]), pads_name], name_of(op.outputs[0]))


def _resize(state: Conversion, op: Operator) -> None:
    align_corners, half_pixel = op.option(2, "?"), op.option(3, "?")
    mode = "half_pixel" if half_pixel else "align_corners" if align_corners else "asymmetric"
    size = np.asarray(state.shape(op.outputs[0])[1:3]) / np.asarray(state.shape(op.inputs[0])[1:3])
    scales = state.constant(np.array([1, 1, *size], np.float32), "scale")
    inputs = [name_of(op.inputs[0]), "", scales]
    state.emit("Resize", inputs, name_of(op.outputs[0]), mode="linear", coordinate_transformation_mode=mode)


def _reshape(state: Conversion, op: Operator) -> None:
    source, target = state.shape(op.inputs[0]), state.shape(op.outputs[0])
    if len(source) != 4 or len(target) == 4:
        raise ValueError(f"TFLite RESHAPE from {source} to {target}: only from an image to a vector")
    output = name_of(op.outputs[0])
    nhwc = state.emit("Transpose", [name_of(op.inputs[0])], output + "_nhwc", perm=[0, 2, 3, 1])
    shape = state.constant(np.array([-1, *target[1:]], np.int64), "shape")
    state.emit("Reshape", [nhwc, shape], output)


CONVERTERS: Mapping[str, Converter] = {
    "ABS": _elementwise,
    "ADD": _arithmetic,
    "AVERAGE_POOL_2D": _pool,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "HARD_SWISH": _hard_swish,
    "LOGISTIC": _elementwise,
    "MAX_POOL_2D": _pool,
    "MUL": _arithmetic,
    "PAD": _pad,
    "PRELU": _prelu,
    "RELU": _elementwise,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resize,
    "SUB": _arithmetic,
}
