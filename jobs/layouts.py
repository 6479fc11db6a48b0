"""Pictures that a person gives to generate from: a layout, whose pixels are slot numbers, and a first frame."""

from __future__ import annotations

from pathlib import Path

from data_prep.records import U8, InputError


def read_layout(path: Path) -> U8:
    """u8[H,W] of an 8-bit grey PNG: 0 nobody, k where the k-th of the cast belongs. Raises InputError."""
    import cv2
    import numpy as np

    layout = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if layout is None or layout.ndim != 2 or layout.dtype != np.uint8:
        what = "is not an 8-bit grey PNG" if path.is_file() else "is not a file"
        raise InputError(f"--layout: {str(path)!r} {what}; save slot numbers 0, 1, 2 ... as grey")
    return np.asarray(layout, np.uint8)


def read_anchor(path: Path) -> U8:
    """u8[H,W,3] RGB of a picture file. Raises InputError."""
    import cv2
    import numpy as np

    picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if picture is None:
        what = "is not a picture" if path.is_file() else "is not a file"
        raise InputError(f"--anchor: {str(path)!r} {what}; give a PNG or JPEG of the video's size")
    return np.ascontiguousarray(picture[..., ::-1])
