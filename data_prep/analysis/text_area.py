"""How much of a picture is covered by text: captions, logos, subtitles, which a video model learns to draw.

The detector is PP-OCRv4's (differentiable binarisation, Liao et al. 2020; Apache-2.0), whose ONNX file the optional
package ``rapidocr-onnxruntime`` brings; nothing else of that package is used. About 150 ms a picture, so few are
asked.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.faces.recogniser import session_options
from data_prep.records import F32, U8, InputError

TextDetector = Callable[[U8], float]
"""u8[H,W,3] RGB -> share of the picture, in [0,1], that text covers."""

PACKAGE = "rapidocr_onnxruntime"
MODEL = Path("models") / "ch_PP-OCRv4_det_infer.onnx"
SHA256 = "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9"  # of 1.4.4's; numbers hold for it alone

LONG_SIDE_PX = 960
TEXT = 0.3  # probability from which a pixel is text, and
SURE = 0.5  # mean probability of a region from which it is one; both as PP-OCRv4 comes
GROWTH = (
    1.6  # the network marks the core of a line; its rim is that times area over circumference further out
)


def text_detector(name: str) -> TextDetector | None:
    """The detector of ``quality.text_detector``; None for none. Raises InputError for one that is not installed."""
    return TEXT_DETECTORS[name]()


def require(name: str) -> None:
    """Raises InputError, before any clip is read, where the detector of that name could not work."""
    if name:
        _model()


@cache
def _pp_ocr() -> TextDetector:
    """Loads the network once per process."""
    import onnxruntime

    path = _model()
    session = onnxruntime.InferenceSession(str(path), session_options(1), providers=["CPUExecutionProvider"])
    return lambda image: area_of(_probability(session, image))


def _model() -> Path:
    found = importlib.util.find_spec(PACKAGE)
    path = (
        Path(found.submodule_search_locations[0]) / MODEL
        if found and found.submodule_search_locations
        else None
    )
    if path is None or not path.is_file():
        raise InputError(
            "quality.text_detector: came 'rapidocr', which is not installed; run `pip install "
            "rapidocr-onnxruntime==1.4.4`, or leave it empty: no text is measured then"
        )
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != SHA256:
        raise InputError(f"{path}: has sha256 {got}, expected {SHA256}; install rapidocr-onnxruntime==1.4.4")
    return path


def _probability(session: Any, image: U8) -> F32:
    """f32[h,w] in [0,1]: where text is, at the size the network sees."""
    scale = min(1.0, LONG_SIDE_PX / max(image.shape[:2]))
    height, width = (max(32, round(side * scale / 32) * 32) for side in image.shape[:2])
    bgr = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1]
    fed = (bgr.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
    return np.asarray(session.run(None, {session.get_inputs()[0].name: fed})[0][0, 0], np.float32)


def area_of(probability: F32) -> float:
    """Share of f32[h,w] that the text regions cover once each has grown to its rim."""
    contours, _ = cv2.findContours(
        (probability > TEXT).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE
    )
    covered = np.zeros(probability.shape, np.uint8)
    for contour in contours:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < 3:
            continue
        inside = cv2.drawContours(np.zeros_like(covered), [contour], -1, 1, cv2.FILLED)
        if cv2.mean(probability, inside)[0] < SURE:
            continue
        further = 2 * GROWTH * width * height / (2 * (width + height))
        corners = cv2.boxPoints((centre, (width + further, height + further), angle))
        cv2.fillPoly(covered, [np.round(corners).astype(np.int32)], 1)
    return float(covered.mean())


TEXT_DETECTORS: Mapping[str, Callable[[], TextDetector | None]] = {"": lambda: None, "rapidocr": _pp_ocr}
