"""Wrap the CenterFace detector as an SCRFD graph, so that insightface loads it as one of its own.

CenterFace answers with one cell per 4 × 4 pixels: heat, log size, centre offset, five landmarks. insightface's
SCRFD expects scores, border distances and landmark offsets at strides 8, 16 and 32 with two anchors per cell. Here
each stride-8 cell takes the best of its four CenterFace cells; the other anchor and strides stay empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
IR_VERSION = 8
INPUT_NAME = "input.1"
WIDTHS = {"s": 1, "b": 4, "k": 10}  # score, box distances, landmarks: numbers per anchor
STRIDES = (8, 16, 32)


class _Writer:
    """Collects nodes and constants; every name it gives starts with cf_, so that none meets the network's."""

    def __init__(self, constants: list[onnx.TensorProto]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = constants

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), "cf_" + name))
        return "cf_" + name

    def op(self, kind: str, inputs: list[str], outputs: str | list[str], **attributes: Any) -> str:
        names = [outputs] if isinstance(outputs, str) else outputs
        name = f"cf_{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, names, name=name, **attributes))
        return names[0]


def as_scrfd(network: onnx.ModelProto) -> onnx.ModelProto:
    """CenterFace's ONNX model (outputs heat, size, offset, landmarks) → an SCRFD model with nine outputs.

    Input: f32[1,3,H,W] RGB, (x − 127.5) / 128, H and W multiples of 32. Same input, same bytes.
    """
    graph = network.graph
    constants = list(graph.initializer)
    body = list(graph.node)
    prologue = _denormalise(graph, body, constants)
    writer = _Writer(constants)
    heat, size, offset, landmarks = (output.name for output in graph.output)
    _decode(writer, heat, size, offset, landmarks)
    _best_of_four(writer)
    outputs = _fill_anchors(writer, heat)
    wrapped = helper.make_graph(
        prologue + body + writer.nodes,
        "centerface_scrfd",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"n_{name}", w]) for name, w in outputs],
        constants,
    )
    model = helper.make_model(
        wrapped, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="centerface_scrfd"
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def _denormalise(
    graph: onnx.GraphProto, body: list[onnx.NodeProto], constants: list[onnx.TensorProto]
) -> list[onnx.NodeProto]:
    """Nodes that turn SCRFD's (x − 127.5) / 128 back into the 0..255 that CenterFace wants."""
    weights = {tensor.name for tensor in graph.initializer}
    old_input = next(value.name for value in graph.input if value.name not in weights)
    raw = old_input + "_raw"
    for node in body:
        node.input[:] = [raw if name == old_input else name for name in node.input]
    constants.append(numpy_helper.from_array(np.asarray(np.float32(128)), "cf_s"))
    constants.append(numpy_helper.from_array(np.asarray(np.float32(127.5)), "cf_m"))
    return [
        helper.make_node("Mul", [INPUT_NAME, "cf_s"], ["cf_x128"], name="cf_pre_mul"),
        helper.make_node("Add", ["cf_x128", "cf_m"], [raw], name="cf_pre_add"),
    ]


def _decode(w: _Writer, heat: str, size: str, offset: str, landmarks: str) -> None:
    """``p_all`` [1,15,H/4,W/4]: score, x1 y1 x2 y2, five x y, in pixels from each cell's own corner.

    Only 3 × 3 maxima of the heat keep their score, so that a 2 × 2 block has at most one peak.
    """
    f32, i64 = np.float32, np.int64
    w.op("MaxPool", [heat], "p_max", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    w.op("Less", [heat, "p_max"], "p_less")
    w.op("Where", ["p_less", w.constant("zero", f32(0)), heat], "p_score")
    w.op("Exp", [size], "p_es")
    w.op("Mul", ["p_es", w.constant("four", f32(4))], "p_size")  # height, width
    w.op("Add", [offset, w.constant("half", f32(0.5))], "p_o")
    w.op("Mul", ["p_o", "cf_four"], "p_ctr")  # centre y, x
    w.op("Mul", ["p_size", "cf_half"], "p_hs")
    w.op("Sub", ["p_ctr", "p_hs"], "p_tl")
    w.op("Add", ["p_ctr", "p_hs"], "p_br")
    w.op("Split", ["p_tl", w.constant("split2", np.array([1, 1], i64))], ["p_y1", "p_x1"], axis=1)
    w.op("Split", ["p_br", "cf_split2"], ["p_y2", "p_x2"], axis=1)
    w.op("Split", ["p_size", "cf_split2"], ["p_h", "p_w"], axis=1)
    w.op("Gather", [landmarks, w.constant("ky", np.arange(0, 10, 2, dtype=i64))], "p_ly", axis=1)
    w.op("Gather", [landmarks, w.constant("kx", np.arange(1, 10, 2, dtype=i64))], "p_lx", axis=1)
    w.op("Mul", ["p_lx", "p_w"], "p_lxw")
    w.op("Add", ["p_lxw", "p_x1"], "p_kx")
    w.op("Mul", ["p_ly", "p_h"], "p_lyh")
    w.op("Add", ["p_lyh", "p_y1"], "p_ky")
    w.op("Split", ["p_kx", w.constant("split5", np.ones(5, i64))], [f"p_kx{j}" for j in range(5)], axis=1)
    w.op("Split", ["p_ky", "cf_split5"], [f"p_ky{j}" for j in range(5)], axis=1)
    points = [f"p_k{axis}{j}" for j in range(5) for axis in "xy"]
    w.op("Concat", ["p_score", "p_x1", "p_y1", "p_x2", "p_y2", *points], "p_all", axis=1)


def _best_of_four(w: _Writer) -> None:
    """``p_s8``, ``p_b8``, ``p_k8`` [n,…]: of each 2 × 2 block the best cell, in SCRFD's units of one stride."""
    f32, i64 = np.float32, np.int64
    w.op("SpaceToDepth", ["p_all"], "p_s2d", blocksize=2)  # [1,4·15,H/8,W/8], blocks in order y, x
    w.op("Reshape", ["p_s2d", w.constant("r4", np.array([4, 15, -1], i64))], "p_r")
    w.op("Transpose", ["p_r"], "p_cells", perm=[2, 0, 1])  # [n,4,15]
    shift = np.zeros((1, 4, 15), f32)
    for block in range(4):
        block_y, block_x = divmod(block, 2)
        shift[0, block, 1::2], shift[0, block, 2::2] = 4 * block_x, 4 * block_y
    w.op("Add", ["p_cells", w.constant("shift", shift)], "p_sh")
    w.op("Gather", ["p_cells", w.constant("i0", i64(0))], "p_sc", axis=2)
    w.op("ArgMax", ["p_sc"], "p_arg", axis=1, keepdims=0)
    depth, on_off = w.constant("depth", i64(4)), w.constant("onoff", np.array([0, 1], f32))
    w.op("OneHot", ["p_arg", depth, on_off], "p_hot", axis=-1)
    w.op("Unsqueeze", ["p_hot", w.constant("ax2", np.array([2], i64))], "p_hot3")
    w.op("Mul", ["p_sh", "p_hot3"], "p_sel4")
    w.op("ReduceSum", ["p_sel4", w.constant("ax1", np.array([1], i64))], "p_sel", keepdims=0)
    sign = np.ones(15, f32) / 8
    sign[0], sign[1], sign[2] = 1, -1 / 8, -1 / 8  # SCRFD's left and top are distances
    w.op("Mul", ["p_sel", w.constant("sign", sign)], "p_fin")
    parts = ["p_s8", "p_b8", "p_k8"]
    w.op("Split", ["p_fin", w.constant("split3", np.array([1, 4, 10], i64))], parts, axis=1)


def _fill_anchors(w: _Writer, heat: str) -> list[tuple[str, int]]:
    """The nine outputs (name, width) in SCRFD's order, with zeros for the anchors that CenterFace has not."""
    for kind, width in WIDTHS.items():
        w.op("Mul", [f"p_{kind}8", "cf_zero"], f"p_{kind}8z")
        w.op("Concat", [f"p_{kind}8", f"p_{kind}8z"], f"p_{kind}8c", axis=1)
        shape = w.constant(f"sh{width}", np.array([-1, width], np.int64))
        w.op("Reshape", [f"p_{kind}8c", shape], f"{kind}_8")
        for stride in STRIDES[1:]:
            cells = stride // 4
            if kind == "s":
                w.op("MaxPool", [heat], f"p_e{stride}", kernel_shape=[cells, cells], strides=[cells, cells])
                w.op("Reshape", [f"p_e{stride}", "cf_sh1"], f"p_e{stride}r")
                w.op("Mul", [f"p_e{stride}r", "cf_zero"], f"p_e{stride}z")
            w.op("Concat", [f"p_e{stride}z"] * (2 * width), f"p_{kind}{stride}c", axis=1)
            w.op("Reshape", [f"p_{kind}{stride}c", f"cf_sh{width}"], f"{kind}_{stride}")
    return [(f"{kind}_{stride}", width) for kind, width in WIDTHS.items() for stride in STRIDES]
