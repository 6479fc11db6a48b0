"""Pictures that a person gives to generate from: where everybody is, in one picture or over time, a first frame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig

ARRAY = "labels"  # the name of a layout in an npz
FORMS = """a grey PNG, where pixel k is the k-th of the cast and 0 nobody; a folder of such, one per frame by name;
an npz with labels u8[frames,height,width]; or JSON of boxes over time: {"anna": [{"frame": 0, "box": [left, top,
right, bottom]}, ...]} in shares of width and height"""


def read_layout(path: Path) -> U8:
    """u8[H,W] of an 8-bit grey PNG: 0 nobody, k where the k-th of the cast belongs. Raises InputError."""
    import cv2
    import numpy as np

    layout = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if layout is None or layout.ndim != 2 or layout.dtype != np.uint8:
        what = "is not an 8-bit grey PNG" if path.is_file() else "is not a file"
        raise InputError(f"--layout: {str(path)!r} {what}; save slot numbers 0, 1, 2 ... as grey")
    return np.asarray(layout, np.uint8)


def read_layouts(path: Path, cast: Sequence[str], config: GenerateConfig) -> U8:
    """u8[H,W], or u8[T,H,W] over time, of any of the FORMS. Raises InputError."""
    if path.is_dir():
        return _from_folder(path, config)
    if path.suffix == ".npz" and path.is_file():
        return _from_npz(path)
    if path.suffix == ".json" and path.is_file():
        from pipeline.generating.boxes import paint, parse_boxes

        size = (config.num_frames, config.height_px, config.width_px)
        return paint(parse_boxes(_json(path), cast, config.num_frames), cast, size)
    return read_layout(path)


def read_anchor(path: Path) -> U8:
    """u8[H,W,3] RGB of a picture file. Raises InputError."""
    return read_picture("--anchor", path)


def read_picture(option: str, path: Path) -> U8:
    """u8[H,W,3] RGB of the picture file that an option names. Raises InputError."""
    import cv2
    import numpy as np

    picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if picture is None:
        what = "is not a picture" if path.is_file() else "is not a file"
        size = " of the video's size" if option == "--anchor" else ""
        raise InputError(f"{option}: {str(path)!r} {what}; give a PNG or JPEG{size}")
    return np.ascontiguousarray(picture[..., ::-1])


def _from_folder(folder: Path, config: GenerateConfig) -> U8:
    import numpy as np

    paths = sorted(folder.glob("*.png"))
    if len(paths) != config.num_frames:
        raise InputError(
            f"--layout: {len(paths)} PNG in {str(folder)!r}; the video has num_frames={config.num_frames}: one "
            "each, in the order of their names"
        )
    frames = [read_layout(path) for path in paths]
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"--layout: the PNG in {str(folder)!r} differ in size; draw all at the video's size")
    return np.stack(frames)


def _from_npz(path: Path) -> U8:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            labels = file[ARRAY]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"--layout: {str(path)!r}: {error}; save it by np.savez_compressed(FILE, {ARRAY}=u8[T,H,W])"
        ) from error
    if labels.dtype != np.uint8 or labels.ndim != 3:
        raise InputError(
            f"--layout: {ARRAY} in {str(path)!r} is {labels.dtype}{labels.shape}; give uint8 (T, H, W)"
        )
    return np.asarray(labels, np.uint8)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"--layout: {str(path)!r} is not JSON ({error})") from error
