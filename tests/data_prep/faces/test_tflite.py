"""The TFLite converter against arithmetic written out in numpy, on files assembled byte by byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
import onnxruntime
import pytest

from data_prep.faces.tflite import Conversion, convert, name_of
from data_prep.faces.tflite_file import Operator, read_graph

F32_TYPE, I32_TYPE = 0, 2
CODES = {"ADD": 0, "AVERAGE_POOL_2D": 1, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "MUL": 18, "RELU": 19}
CODES |= {"CUSTOM": 32, "PAD": 34, "SUB": 41, "ABS": 101, "HARD_SWISH": 117}
SAME, VALID = 0, 1


def _vector(b: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _table(b: flatbuffers.Builder, **fields: tuple[str, Any]) -> int:
    """A table; fields are named f0, f1, … after their slots; kinds: ref, i8, i32, u32."""
    b.StartObject(8)
    for name, (kind, value) in fields.items():
        slot = int(name[1:])
        if kind == "ref":
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        elif kind == "i8":
            b.PrependInt8Slot(slot, value, 0)
        elif kind == "u32":
            b.PrependUint32Slot(slot, value, 0)
        else:
            b.PrependInt32Slot(slot, value, 0)
    return int(b.EndObject())


def tflite_bytes(
    tensors: list[tuple[str, tuple[int, ...], np.ndarray | None]],
    operators: list[tuple[str, list[int], int, dict[str, tuple[str, int]]]],
    output: int,
) -> bytes:
    """A TFLite file: tensor 0 is the input; operators are (kind, inputs, output, options by slot)."""
    b = flatbuffers.Builder(1024)
    buffers, tensor_tables = [_table(b)], []
    for name, shape, value in tensors:
        buffer = 0
        if value is not None:
            raw = b.CreateNumpyVector(np.frombuffer(value.tobytes(), np.uint8))
            buffer = len(buffers)
            buffers.append(_table(b, f0=("ref", raw)))
        label, dims = b.CreateString(name), b.CreateNumpyVector(np.array(shape, np.int32))
        kind = I32_TYPE if value is not None and value.dtype == np.int32 else F32_TYPE
        tensor_tables.append(
            _table(b, f0=("ref", dims), f1=("i8", kind), f2=("u32", buffer), f3=("ref", label))
        )
    kinds = list(dict.fromkeys(kind for kind, *_ in operators))
    code_tables = []
    for kind in kinds:
        builtin = CODES.get(kind, CODES["CUSTOM"])
        custom = {} if kind in CODES else {"f1": ("ref", b.CreateString(kind))}
        code_tables.append(_table(b, f0=("i8", builtin), f3=("i32", builtin), **custom))
    operator_tables = []
    for kind, inputs, out, options in operators:
        ins, outs = (b.CreateNumpyVector(np.array(v, np.int32)) for v in (inputs, [out]))
        fields = {"f0": ("u32", kinds.index(kind)), "f1": ("ref", ins), "f2": ("ref", outs)}
        if options:
            fields["f4"] = ("ref", _table(b, **options))
        operator_tables.append(_table(b, **fields))
    ends = [b.CreateNumpyVector(np.array(v, np.int32)) for v in ([0], [output])]
    parts = [_vector(b, tensor_tables), *ends, _vector(b, operator_tables)]
    graph = _table(b, **{f"f{slot}": ("ref", part) for slot, part in enumerate(parts)})
    vectors = [_vector(b, code_tables), _vector(b, [graph]), _vector(b, buffers)]
    root = _table(b, f0=("u32", 3), **{f"f{s}": ("ref", v) for s, v in zip((1, 2, 4), vectors, strict=True)})
    b.Finish(root, file_identifier=b"TFL3")
    return bytes(b.Output())


def run(model: Any, image_nhwc: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (output,) = session.run(None, {"input.1": image_nhwc.transpose(0, 3, 1, 2)})
    return np.asarray(output.transpose(0, 2, 3, 1))


def convolve(image: np.ndarray, weights: np.ndarray, stride: int, begin: int, end: int) -> np.ndarray:
    """NHWC × (kh, kw, in, out), one image, by the definition."""
    padded = np.pad(image[0], ((begin, end), (begin, end), (0, 0)))
    kh, kw = weights.shape[:2]
    rows = range(0, padded.shape[0] - kh + 1, stride)
    return np.array(
        [[np.einsum("ijc,ijco->o", padded[y : y + kh, x : x + kw], weights) for x in rows] for y in rows]
    )[None]


def test_strided_same_convolution_and_the_spelled_out_prelu() -> None:
    rng = np.random.default_rng(0)
    weights, bias, slope = (rng.normal(size=s).astype(np.float32) for s in ((3, 3, 3, 2), (3,), (3,)))
    shape = (1, 3, 3, 3)
    data = tflite_bytes(
        [
            ("image", (1, 6, 6, 2), None),
            ("weights", weights.shape, weights),
            ("bias", bias.shape, bias),
            ("conv", shape, None),
            ("relu", shape, None),
            ("abs", shape, None),
            ("sub", shape, None),
            ("slope", slope.shape, slope),
            ("mul", shape, None),
            ("prelu", shape, None),
        ],
        [
            ("CONV_2D", [0, 1, 2], 3, {"f0": ("i8", SAME), "f1": ("i32", 2), "f2": ("i32", 2)}),
            ("RELU", [3], 4, {}),
            ("ABS", [3], 5, {}),
            ("SUB", [3, 5], 6, {}),
            ("MUL", [6, 7], 8, {}),
            ("ADD", [4, 8], 9, {}),
        ],
        output=9,
    )
    model = convert(data)
    assert [node.op_type for node in model.graph.node] == ["Conv", "PRelu"]
    image = rng.normal(size=(1, 6, 6, 2)).astype(np.float32)
    # TensorFlow's SAME: 3 outputs need 7 input pixels of 6, and the odd one is added at the end
    x = convolve(image, weights.transpose(1, 2, 3, 0), stride=2, begin=0, end=1) + bias
    expected = np.maximum(x, 0) + slope * (x - np.abs(x))
    assert np.abs(run(model, image) - expected).max() < 1e-5


def test_depthwise_pad_pool_and_hard_swish() -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(1, 2, 2, 3)).astype(np.float32)
    pads = np.array([[0, 0], [1, 0], [0, 1], [0, 0]], np.int32)
    pool = {"f0": ("i8", VALID), "f1": ("i32", 2), "f2": ("i32", 2), "f3": ("i32", 2), "f4": ("i32", 2)}
    data = tflite_bytes(
        [
            ("image", (1, 4, 4, 3), None),
            ("pads", pads.shape, pads),
            ("padded", (1, 5, 5, 3), None),
            ("weights", weights.shape, weights),
            ("filtered", (1, 4, 4, 3), None),
            ("swish", (1, 4, 4, 3), None),
            ("pooled", (1, 2, 2, 3), None),
        ],
        [
            ("PAD", [0, 1], 2, {}),
            (
                "DEPTHWISE_CONV_2D",
                [2, 3],
                4,
                {"f0": ("i8", VALID), "f1": ("i32", 1), "f2": ("i32", 1), "f3": ("i32", 1)},
            ),
            ("HARD_SWISH", [4], 5, {}),
            ("AVERAGE_POOL_2D", [5], 6, pool),
        ],
        output=6,
    )
    image = rng.normal(size=(1, 4, 4, 3)).astype(np.float32)
    padded = np.pad(image, pads)
    x = sum(weights[0, i, j] * padded[:, i : i + 4, j : j + 4] for i in range(2) for j in range(2))
    swish = x * np.clip(x / 6 + 0.5, 0, 1)
    expected = swish.reshape(1, 2, 2, 2, 2, 3).mean((2, 4))
    assert np.abs(run(convert(data), image) - expected).max() < 1e-5


def test_a_custom_operator_takes_the_converter_that_is_given() -> None:
    data = tflite_bytes(
        [("image", (1, 2, 2, 1), None), ("out", (1, 2, 2, 1), None)], [("Doubled", [0], 1, {})], output=1
    )

    def doubled(state: Conversion, op: Operator) -> None:
        two = state.constant(np.float32(2), "two")
        state.emit("Mul", [name_of(op.inputs[0]), two], name_of(op.outputs[0]))

    image = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    assert np.array_equal(run(convert(data, custom={"Doubled": doubled}), image), 2 * image)
    with pytest.raises(ValueError, match="'Doubled' has no converter"):
        convert(data)


def test_what_is_not_tflite_is_refused() -> None:
    with pytest.raises(ValueError, match="TFL3"):
        read_graph(b"\x00" * 64)
