"""Pictures of the report, as data URIs: contact sheets with masks, boxes and identity colours; faces."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.decode import decode_mp4
from data_prep.records import U8
from data_prep.shards import Sample

Rgb = tuple[int, int, int]
PALETTE = (
    "#e4572e",
    "#2e86ab",
    "#6aa84f",
    "#f3a712",
    "#8e44ad",
    "#12a594",
    "#d81b60",
    "#5d6d7e",
    "#8d6e63",
    "#0277bd",
    "#b8a000",
    "#5e35b1",
)
TILE_HEIGHT_PX = 200
SHEET_FRAMES = 6
JPEG_QUALITY = 84


def colour(index: int) -> str:
    """The identity colour of the character with this place in the corpus, as ``#rrggbb``."""
    return PALETTE[index % len(PALETTE)]


def contact_sheet(sample: Sample, colours: Sequence[str]) -> str:
    """Data URI of up to six frames side by side. colours: one per cast slot."""
    video = decode_mp4(sample.mp4)
    shown = np.unique(np.linspace(0, len(video) - 1, SHEET_FRAMES).round().astype(int))
    tiles = [_tile(video[at], sample.label_map[at], [_rgb(c) for c in colours]) for at in shown]
    gap = np.full((tiles[0].shape[0], 4, 3), 255, np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)]
    return jpeg_uri(np.concatenate(parts[:-1], axis=1))


def jpeg_uri(image: U8) -> str:
    """u8[H,W,3] RGB as the text of an ``<img src>``."""
    done, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert done
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _tile(frame: U8, label_map: U8, colours: Sequence[Rgb]) -> U8:
    """One frame enlarged to the sheet's height, every person tinted, outlined, boxed and numbered."""
    scale = TILE_HEIGHT_PX / frame.shape[0]
    size = (round(frame.shape[1] * scale), TILE_HEIGHT_PX)
    tile = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    for slot, rgb in enumerate(colours, 1):
        mask = cv2.resize((label_map == slot).astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
        if mask.any():
            tile = _mark(tile, mask, slot, rgb)
    return tile


def _mark(tile: U8, mask: npt.NDArray[np.bool_], slot: int, rgb: Rgb) -> U8:
    tinted = tile.copy()
    tinted[mask] = (0.68 * tile[mask] + 0.32 * np.array(rgb)).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tinted, contours, -1, rgb, 2, cv2.LINE_AA)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = max(int(columns[0]) - 4, 0), max(int(rows[0]) - 4, 0)
    right, bottom = int(columns[-1]) + 4, int(rows[-1]) + 4
    cv2.rectangle(tinted, (left, top), (right, bottom), rgb, 1, cv2.LINE_AA)
    cv2.rectangle(tinted, (left, top), (left + 15, top + 16), rgb, -1)
    at = (left + 3, top + 13)
    cv2.putText(tinted, str(slot), at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return tinted


def _rgb(colour: str) -> Rgb:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
