"""An evaluation to look at: the similarity matrix as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_prep.records import U8
from pipeline.judging.evaluate import Evaluation

CELL_PX, FACE_PX, HEAD_PX, TITLE_PX, GAP_PX = 92, 68, 100, 40, 32
INK, GREY, PAPER = (28, 32, 38), (120, 126, 134), (255, 255, 255)
BLEED, UNSEEN = (204, 51, 34), (238, 240, 243)
RAMP = (
    (244, 247, 250),
    (158, 202, 225),
    (33, 113, 181),
    (8, 48, 107),
)  # light to dark blue, similarity 0 to 1


def matrix_picture(evaluation: Evaluation, references: Mapping[str, U8]) -> U8:
    """u8[H,W,3]: one matrix per recogniser, seen faces beside the rows, references u8[112,112,3] above the columns
    where there are any."""
    from PIL import Image, ImageDraw, ImageFont

    size = HEAD_PX + CELL_PX * len(evaluation.cast)
    width = (size + GAP_PX) * len(evaluation.scores) + GAP_PX
    picture = Image.new("RGB", (width, TITLE_PX + size + GAP_PX), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, scores in enumerate(evaluation.scores):
        left = GAP_PX + place * (size + GAP_PX)
        title = f"{scores.pack}, same person from {scores.same_person:.2f}"
        draw.text((left, 10), title, font=ImageFont.load_default(16), fill=INK)
        hint = "rows: seen\ncolumns: reference"
        draw.text((left, TITLE_PX + HEAD_PX - 44), hint, font=ImageFont.load_default(11), fill=GREY)
        for i, name in enumerate(evaluation.cast):
            across, down = left + HEAD_PX + i * CELL_PX, TITLE_PX + HEAD_PX + i * CELL_PX
            _head(picture, (across, TITLE_PX + HEAD_PX - CELL_PX - 4), name, references.get(name))
            _head(picture, (left + HEAD_PX - CELL_PX, down), name, evaluation.faces[i])
            for j in range(len(evaluation.cast)):
                corner = (left + HEAD_PX + j * CELL_PX, down)
                _cell(draw, corner, float(scores.similarity[i, j]), i != j, scores.same_person)
    return np.asarray(picture, np.uint8)


def _head(picture: Any, corner: tuple[int, int], name: str, face: U8 | None) -> None:
    """A face and its name in a head square; the name alone where there is no face."""
    from PIL import Image, ImageDraw, ImageFont

    x, y = corner
    middle = x + CELL_PX / 2
    if face is not None and not face.any():
        square = (x + 12, y + 4, x + 12 + FACE_PX, y + 4 + FACE_PX)
        ImageDraw.Draw(picture).rectangle(square, fill=UNSEEN)
    elif face is not None:
        thumb = Image.fromarray(face).resize((FACE_PX, FACE_PX), Image.Resampling.LANCZOS)
        picture.paste(thumb, (x + (CELL_PX - FACE_PX) // 2, y + 4))
    label = name if len(name) <= 13 else name[:11] + "..."
    at = (middle, y + FACE_PX + 14)
    ImageDraw.Draw(picture).text(at, label, font=ImageFont.load_default(12), fill=INK, anchor="mm")


def _cell(draw: Any, corner: tuple[int, int], value: float, is_bleed: bool, same_person: float) -> None:
    from PIL import ImageFont

    x, y = corner
    box = (x + 2, y + 2, x + CELL_PX - 2, y + CELL_PX - 2)
    known = math.isfinite(value)
    fill = _shade(value) if known else UNSEEN
    outline = BLEED if known and is_bleed and value >= same_person else None
    draw.rounded_rectangle(box, radius=8, fill=fill, outline=outline, width=4)
    ink = PAPER if known and sum(fill) < 380 else INK
    draw.text(
        (x + CELL_PX / 2, y + CELL_PX / 2),
        _number(value),
        font=ImageFont.load_default(21),
        fill=ink,
        anchor="mm",
    )


def _shade(value: float) -> tuple[int, int, int]:
    at = min(max(value, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(at), len(RAMP) - 2)
    pairs = zip(RAMP[low], RAMP[low + 1], strict=True)
    red, green, blue = (round(a + (b - a) * (at - low)) for a, b in pairs)
    return red, green, blue


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def png(image: U8) -> bytes:
    """u8[H,W,3] as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()
