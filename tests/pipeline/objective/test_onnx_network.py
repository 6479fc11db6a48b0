"""Networks written here node by node, against ONNX Runtime's answers to the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from data_prep.faces.recogniser import session_options
from data_prep.records import F32, InputError
from pipeline.objective.onnx_network import UnsupportedOperatorError, read_graph, torch_network

RNG = np.random.default_rng(3)


def weights(**shapes: tuple[int, ...]) -> dict[str, F32]:
    return {name: RNG.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write(path: Path, nodes: list[Any], stored: dict[str, Any], dim: int) -> Path:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, ["n", 3, 12, 12])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def iresnet(path: Path) -> Path:
    """One block of the kind that buffalo_l and antelopev2 are made of, ending in Gemm and batch normalisation."""
    stored = weights(
        w0=(8, 3, 3, 3), w1=(8, 8, 3, 3), w2=(8, 1, 3, 3), b2=(8,), slope=(8, 1, 1), fc=(5, 288), fcb=(5,)
    )
    stored |= {f"{name}{k}": np.abs(v) + 0.5 for k in (0, 1) for name, v in weights(s=(8,), v=(8,)).items()}
    stored |= {f"{name}{k}": v for k in (0, 1) for name, v in weights(b=(8,), m=(8,)).items()}
    stored |= {"s9": np.ones(5, np.float32), "v9": np.full(5, 0.7, np.float32), **weights(b9=(5,), m9=(5,))}
    stored |= {"half": np.array(0.5, np.float32), "two": np.array(2.0, np.float32)}
    norm, eps = "BatchNormalization", 2e-5
    nodes = [
        helper.make_node("Sub", ["in", "half"], ["a0"]),
        helper.make_node("Mul", ["a0", "two"], ["a1"]),
        helper.make_node("Conv", ["a1", "w0"], ["a2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node(norm, ["a2", "s0", "b0", "m0", "v0"], ["a3"], epsilon=eps),
        helper.make_node("PRelu", ["a3", "slope"], ["a4"]),
        helper.make_node("Conv", ["a4", "w1"], ["a5"], pads=[2, 2, 2, 2], dilations=[2, 2]),
        helper.make_node("Conv", ["a5", "w2", "b2"], ["a6"], pads=[0, 1, 2, 1], group=8),
        helper.make_node(norm, ["a6", "s1", "b1", "m1", "v1"], ["a7"], epsilon=eps),
        helper.make_node("Add", ["a7", "a3"], ["a8"]),
        helper.make_node("Dropout", ["a8"], ["a9"]),
        helper.make_node("Flatten", ["a9"], ["a10"], axis=1),
        helper.make_node("Gemm", ["a10", "fc", "fcb"], ["a11"], transB=1),
        helper.make_node(norm, ["a11", "s9", "b9", "m9", "v9"], ["a12"], epsilon=eps),
        helper.make_node("Identity", ["a12"], ["out"]),
    ]
    return write(path, nodes, stored, 5)


def test_an_iresnet_answers_as_in_onnx_runtime(tmp_path: Path) -> None:
    path = iresnet(tmp_path / "net.onnx")
    pictures = RNG.normal(0, 1, (4, 3, 12, 12)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), session_options(1))
    network = torch_network(read_graph(path))
    expected = session.run(None, {"in": pictures})[0]
    np.testing.assert_allclose(network(torch.from_numpy(pictures)).numpy(), expected, rtol=1e-5, atol=1e-4)


def test_weights_are_frozen_and_stay_out_of_checkpoints(tmp_path: Path) -> None:
    network = torch_network(read_graph(iresnet(tmp_path / "net.onnx")))
    assert not list(network.parameters()) and not network.state_dict()
    pictures = torch.randn(2, 3, 12, 12, requires_grad=True)
    network.train()(pictures).sum().backward()  # training mode changes nothing: the normalisations are frozen
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0
    torch.testing.assert_close(network(pictures), network.eval()(pictures))


def test_a_batch_of_one_written_into_the_file_is_undone(tmp_path: Path) -> None:
    stored: dict[str, Any] = {**weights(w=(2, 3, 12, 12)), "shape": np.array([1, -1], np.int64)}
    nodes = [
        helper.make_node("Conv", ["in", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["out"]),
    ]
    network = torch_network(read_graph(write(tmp_path / "net.onnx", nodes, stored, 2)))
    pictures = torch.randn(3, 3, 12, 12)
    torch.testing.assert_close(network(pictures), torch.cat([network(one[None]) for one in pictures]))


UNKNOWN = {
    "operator": (helper.make_node("Softmax", ["in"], ["out"]), "Softmax"),
    "padding": (
        helper.make_node("Conv", ["in", "w"], ["out"], auto_pad="SAME_UPPER"),
        "auto_pad=b'SAME_UPPER'",
    ),
    "scale": (helper.make_node("Gemm", ["in", "w"], ["out"], alpha=0.5), "alpha=0.5"),
    "rank": (helper.make_node("Reshape", ["in", "cube"], ["out"]), r"Reshape to \[1, 2, 3\]"),
    "batch": (helper.make_node("Transpose", ["in"], ["out"], perm=[1, 0, 2, 3]), r"perm=\[1, 0, 2, 3\]"),
    "computed": (helper.make_node("Conv", ["in", "in"], ["out"]), "computed 'in'"),
    "slope": (helper.make_node("PRelu", ["in", "w"], ["out"]), r"slope of shape \[2, 3, 3, 3\]"),
}


@pytest.mark.parametrize("case", sorted(UNKNOWN))
def test_what_is_not_known_is_named(case: str, tmp_path: Path) -> None:
    node, said = UNKNOWN[case]
    stored: dict[str, Any] = {**weights(w=(2, 3, 3, 3)), "cube": np.array([1, 2, 3], np.int64)}
    graph = read_graph(write(tmp_path / "net.onnx", [node], stored, 2))
    with pytest.raises(UnsupportedOperatorError, match=said):
        torch_network(graph)


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match=r"net\.onnx: no ONNX network could be read"):
        read_graph(tmp_path / "net.onnx")
    two = write(tmp_path / "two.onnx", [helper.make_node("Identity", ["in"], ["out"])], {}, 2)
    graph = read_graph(two)
    graph.output.append(graph.output[0])
    with pytest.raises(InputError, match="1 inputs and 2 outputs"):
        torch_network(graph)
