"""Both embedded recognisers in torch against ONNX Runtime, on real faces: answers, and gradients by differences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save

from data_prep.faces import PACKS, Recogniser, find_pack
from data_prep.faces.packs import InstalledPack
from data_prep.faces.recogniser import recogniser_for, session_options
from data_prep.records import F64, U8, InputError
from pipeline.data.features import own_face
from pipeline.objective.face_network import FaceNetwork
from tests.pipeline.real_faces import read_scene

EMBEDDED = ("embedded", "embedded_alt")


@pytest.fixture(scope="module")
def crops(footage: Path) -> U8:
    """Eight faces of two people, u8[8,112,112,3]."""
    scene = read_scene(footage, "cafe-01", (0, 20, 40, 60))
    faces = [
        own_face(scene.frames[t : t + 1], scene.labels[t : t + 1] == k, 16) for t in range(4) for k in (1, 2)
    ]
    return np.stack([face for face in faces if face is not None])


@pytest.fixture(scope="module")
def networks(face_home: Path) -> dict[str, FaceNetwork]:
    return {name: FaceNetwork(find_pack(name, face_home)) for name in EMBEDDED}


def pictures(crops: U8) -> torch.Tensor:
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("name", EMBEDDED)
def test_embeds_as_onnx_runtime_does(
    name: str, networks: dict[str, FaceNetwork], crops: U8, face_home: Path
) -> None:
    unit, _ = recogniser_for(name, face_home).embed(crops)
    with torch.no_grad():
        ours = networks[name](pictures(crops)).numpy()
    assert ours.shape == (len(crops), networks[name].dim)
    assert np.abs(ours - unit).max() < 2e-6  # measured: 5e-7; entries of a unit vector of 512 are about 0.04


@pytest.mark.parametrize("name", EMBEDDED)
def test_gradients_are_the_differences_of_onnx_runtime(
    name: str, networks: dict[str, FaceNetwork], crops: U8, face_home: Path
) -> None:
    session = onnxruntime.InferenceSession(str(find_pack(name, face_home).recogniser), session_options(1))
    field = session.get_inputs()[0].name
    first, other = pictures(crops)[:2]
    target = networks[name](other[None])[0].detach()

    def similarity(face: torch.Tensor) -> float:
        raw: F64 = session.run(None, {field: face[None].numpy()})[0][0].astype(np.float64)
        return float(raw @ target.double().numpy() / np.linalg.norm(raw))

    face = first.clone().requires_grad_()
    (networks[name](face[None])[0] @ target).backward()
    assert face.grad is not None
    generator = torch.Generator().manual_seed(0)
    step, ratios = 2e-3, []
    for _ in range(6):
        # half noise, half the gradient's own direction, so that the slope stands out of float32's rounding
        noise = torch.randn(face.shape, generator=generator)
        way = noise / noise.norm() + face.grad / face.grad.norm()
        slope = (similarity(first + step * way) - similarity(first - step * way)) / (2 * step)
        ratios.append(slope / float((face.grad * way).sum()))
    assert ratios == pytest.approx(
        [1.0] * 6, abs=0.01
    )  # measured: 0.002; PRelu's kinks lie between the two points


@pytest.mark.parametrize("name", EMBEDDED)
def test_half_precision_turns_an_embedding_by_little(name: str, crops: U8, face_home: Path) -> None:
    full, half = (FaceNetwork(find_pack(name, face_home)) for _ in range(2))
    half.bfloat16()
    with torch.no_grad():
        ours, same = full(pictures(crops)), half(pictures(crops))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(full(pictures(crops)), ours, rtol=0, atol=0)
    assert same.dtype == torch.float32
    assert (ours * same).sum(-1).min() > 0.997  # 4.4 degrees; frames of one person lie 8 and more apart


def made_pack(folder: Path, nodes: tuple[str, ...]) -> InstalledPack:
    """A pack whose recogniser is a chain of unary or scalar operators, then one row per picture."""
    path = folder / "made.onnx"
    names = ["in", *(f"x{i}" for i in range(len(nodes)))]
    chain = [
        helper.make_node(
            op, [names[i], "c"] if op in ("Sub", "Mul") else [names[i]], [names[i + 1]], name=f"{op}{i}"
        )
        for i, op in enumerate(nodes)
    ]
    chain.append(helper.make_node("Flatten", [names[-1]], ["out"], axis=1))
    size = 3 * 112 * 112
    ends = (
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, size])],
    )
    graph = helper.make_graph(chain, "made", *ends, [numpy_helper.from_array(np.array(3.0, np.float32), "c")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    spec = replace(PACKS["embedded"], name="made", recogniser="made.onnx", dim=size, files={})
    return InstalledPack(spec, folder)


def test_a_network_that_scales_its_own_input_gets_bytes_as_insightface_gives_them(
    tmp_path: Path, crops: U8
) -> None:
    pack = made_pack(tmp_path, ("Sub", "Mul"))
    unit, _ = Recogniser(pack).embed(crops[:1])
    np.testing.assert_allclose(FaceNetwork(pack)(pictures(crops[:1])).numpy(), unit, rtol=0, atol=1e-6)


def test_an_operator_that_is_not_known_is_named_with_its_pack(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"face pack 'made': made\.onnx uses the operator Erf.*another pack"):
        FaceNetwork(made_pack(tmp_path, ("Erf",)))


def test_other_shapes_are_refused(networks: dict[str, FaceNetwork]) -> None:
    with pytest.raises(InputError, match=r"came \[2, 3, 96, 112\], expected \[n,3,112,112\]"):
        networks["embedded"](torch.zeros(2, 3, 96, 112))
