"""A layout as a person draws it: a grey picture whose pixels are slot numbers."""

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
