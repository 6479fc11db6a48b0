"""Draw what a face pack sees: the mask, the box's corners, five landmarks and a name tag per face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.faces.analyser import SeenFace
from data_prep.records import F32, U8

# Okabe and Ito's palette: told apart with every kind of colour vision, and bright enough on skin.
PALETTE = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0))
MIN_LONG_SIDE_PX = 960  # smaller pictures are enlarged, so that text stays readable
OVERSAMPLE = 2  # the overlay is drawn at twice the size and shrunk: smooth edges


@dataclass(frozen=True)
class DrawnFace:
    """A face, its outline f32[P,2] in pixels of the image, and the lines of its tag: the first one is the name."""

    face: SeenFace
    outline_px: F32
    tag: tuple[str, ...]


def draw_faces(image: U8, faces: Sequence[DrawnFace]) -> U8:
    """u8[H,W,3] RGB → the same picture with its faces marked, enlarged to a long side of at least 960 px."""
    from PIL import Image, ImageDraw

    scale = max(1.0, MIN_LONG_SIDE_PX / max(image.shape[:2]))
    width, height = round(image.shape[1] * scale), round(image.shape[0] * scale)
    picture = Image.fromarray(image).convert("RGBA").resize((width, height), Image.Resampling.LANCZOS)
    overlay = Image.new("RGBA", (width * OVERSAMPLE, height * OVERSAMPLE))
    draw = ImageDraw.Draw(overlay)
    unit = OVERSAMPLE * max(width, height) / MIN_LONG_SIDE_PX  # one pixel of a 960-px picture
    for index, drawn in enumerate(faces):
        _mark(draw, drawn, PALETTE[index % len(PALETTE)], scale * OVERSAMPLE, unit)
    for index, drawn in enumerate(faces):  # tags last, so that no mask covers one
        _tag(draw, drawn, PALETTE[index % len(PALETTE)], scale * OVERSAMPLE, unit)
    overlay = overlay.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(Image.alpha_composite(picture, overlay).convert("RGB"), np.uint8)


def _mark(draw: Any, drawn: DrawnFace, colour: tuple[int, int, int], scale: float, unit: float) -> None:
    """Translucent mask with a bright rim, corner brackets around the box, dots on the landmarks."""
    outline = [(float(x) * scale, float(y) * scale) for x, y in drawn.outline_px]
    draw.polygon(outline, fill=(*colour, 70))
    draw.line([*outline, outline[0]], fill=(*colour, 235), width=round(1.6 * unit), joint="curve")
    x1, y1, x2, y2 = (float(v) * scale for v in drawn.face.box_px)
    arm = 0.18 * min(x2 - x1, y2 - y1)
    for x, y, towards_x, towards_y in ((x1, y1, 1, 1), (x2, y1, -1, 1), (x1, y2, 1, -1), (x2, y2, -1, -1)):
        bracket = [(x, y + arm * towards_y), (x, y), (x + arm * towards_x, y)]
        draw.line(bracket, fill=(*colour, 255), width=round(2.4 * unit), joint="curve")
    radius = max(1.6 * unit, 0.012 * (x2 - x1))
    for x, y in drawn.face.landmarks_px * scale:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 255, 255, 255))
        inner = 0.55 * radius
        draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=(*colour, 255))


def _tag(draw: Any, drawn: DrawnFace, colour: tuple[int, int, int], scale: float, unit: float) -> None:
    """A dark plate below the box (above it at the picture's bottom): the name in colour, details in grey."""
    from PIL import ImageFont

    fonts = [ImageFont.load_default(15 * unit)] + [ImageFont.load_default(11 * unit)] * (len(drawn.tag) - 1)
    sizes = [draw.textbbox((0, 0), line, font=font) for line, font in zip(drawn.tag, fonts, strict=True)]
    heights = [bottom + 4 * unit for _, _, _, bottom in sizes]
    pad = 7 * unit
    width, height = max(right for _, _, right, _ in sizes) + 2 * pad, sum(heights) + pad
    x1, y1, x2, y2 = (float(v) * scale for v in drawn.face.box_px)
    canvas_width, canvas_height = draw.im.size
    left = min(max((x1 + x2 - width) / 2, unit), canvas_width - width - unit)
    top = y2 + 6 * unit if y2 + 6 * unit + height <= canvas_height else max(y1 - 6 * unit - height, unit)
    draw.rounded_rectangle((left, top, left + width, top + height), radius=6 * unit, fill=(16, 18, 22, 205))
    draw.rounded_rectangle(
        (left, top + 4 * unit, left + 3 * unit, top + height - 4 * unit),
        radius=1.5 * unit,
        fill=(*colour, 255),
    )
    y = top + 0.5 * pad
    for row, (line, font) in enumerate(zip(drawn.tag, fonts, strict=True)):
        fill = (*colour, 255) if row == 0 else (225, 228, 232, 255)
        draw.text((left + pad, y), line, font=font, fill=fill)
        y += heights[row]
