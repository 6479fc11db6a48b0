"""Read the graph out of a TFLite file: its tensors, constants and operators.

A TFLite file is a FlatBuffer: a table starts with the signed distance back to its vtable, which lists where each
field lies; field numbers below are those of TensorFlow's ``schema.fbs``. Only float graphs are read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# tensorflow/compiler/mlir/lite/schema/schema.fbs, enums TensorType and BuiltinOperator
DTYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.float16, 2: np.int32, 4: np.int64}
OPERATORS = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    14: "LOGISTIC",
    17: "MAX_POOL_2D",
    18: "MUL",
    19: "RELU",
    22: "RESHAPE",
    23: "RESIZE_BILINEAR",
    34: "PAD",
    41: "SUB",
    54: "PRELU",
    101: "ABS",
    117: "HARD_SWISH",
}
CUSTOM = 32

Array = npt.NDArray[Any]


class Table:
    """A FlatBuffer table at a byte position of a buffer."""

    def __init__(self, buffer: bytes, position: int) -> None:
        self._buffer, self._position = buffer, position
        self._vtable = position - _unpack("i", buffer, position)
        self._vtable_bytes = _unpack("H", buffer, self._vtable)

    def number(self, field: int, code: str, default: int = 0) -> int:
        """A scalar field by its struct code, or the default where the file leaves it out."""
        at = self._field(field)
        return _unpack(code, self._buffer, at) if at else default

    def tables(self, field: int) -> list[Table]:
        """A vector of tables; empty where absent."""
        at = self._reference(field)
        if at is None:
            return []
        slots = range(at + 4, at + 4 + 4 * _unpack("I", self._buffer, at), 4)
        return [Table(self._buffer, slot + _unpack("I", self._buffer, slot)) for slot in slots]

    def table(self, field: int) -> Table | None:
        at = self._reference(field)
        return None if at is None else Table(self._buffer, at)

    def array(self, field: int, dtype: type[np.generic]) -> Array:
        """A vector of scalars; empty where absent."""
        at = self._reference(field)
        if at is None:
            return np.zeros(0, dtype)
        return np.frombuffer(self._buffer, dtype, _unpack("I", self._buffer, at), at + 4)

    def text(self, field: int) -> str:
        return bytes(self.array(field, np.uint8)).decode()

    def _field(self, field: int) -> int:
        slot = 4 + 2 * field
        offset = _unpack("H", self._buffer, self._vtable + slot) if slot < self._vtable_bytes else 0
        return self._position + offset if offset else 0

    def _reference(self, field: int) -> int | None:
        at = self._field(field)
        return at + _unpack("I", self._buffer, at) if at else None


@dataclass(frozen=True)
class Tensor:
    """shape is TFLite's own (NHWC); value is its constant, None for what is computed."""

    name: str
    shape: tuple[int, ...]
    value: Array | None


@dataclass(frozen=True)
class Operator:
    """kind: a name of OPERATORS, or a custom operator's own; inputs and outputs are tensor numbers; options is
    the builtin options table."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None

    def option(self, field: int, code: str, default: int = 0) -> int:
        return self.options.number(field, code, default) if self.options else default


@dataclass(frozen=True)
class Graph:
    """The first subgraph of a model."""

    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


def read_graph(data: bytes) -> Graph:
    """Parse a TFLite file; raises ValueError on one that is not, or that holds a constant of another type."""
    if data[4:8] != b"TFL3":
        raise ValueError("not a TFLite file: the identifier TFL3 is missing")
    model = Table(data, _unpack("I", data, 0))
    kinds = [_kind(code) for code in model.tables(1)]
    graph, buffers = model.tables(2)[0], model.tables(4)
    return Graph(
        tensors=tuple(_tensor(table, buffers) for table in graph.tables(0)),
        inputs=_integers(graph, 1),
        outputs=_integers(graph, 2),
        operators=tuple(
            Operator(kinds[o.number(0, "I")], _integers(o, 1), _integers(o, 2), o.table(4))
            for o in graph.tables(3)
        ),
    )


def _kind(code: Table) -> str:
    builtin = max(code.number(0, "b"), code.number(3, "i"))  # the old byte field, and its wider successor
    return code.text(1) if builtin == CUSTOM else OPERATORS.get(builtin, f"builtin operator {builtin}")


def _tensor(table: Table, buffers: list[Table]) -> Tensor:
    name, shape = table.text(3), _integers(table, 0)
    raw = buffers[table.number(2, "I")].array(0, np.uint8)
    if raw.size == 0:
        return Tensor(name, shape, None)
    dtype = DTYPES.get(table.number(1, "b"))
    if dtype is None:
        raise ValueError(f"tensor {name!r} is a constant of type {table.number(1, 'b')}, which is not read")
    return Tensor(name, shape, raw.view(dtype).reshape(shape))


def _integers(table: Table, field: int) -> tuple[int, ...]:
    return tuple(int(v) for v in table.array(field, np.int32))


def _unpack(code: str, buffer: bytes, position: int) -> int:
    return int(struct.unpack_from("<" + code, buffer, position)[0])
