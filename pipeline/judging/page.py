"""An evaluation to look at: the similarity matrix as a picture, and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_prep.records import F64, U8
from pipeline.judging.evaluate import Evaluation, Scores

CELL_PX, FACE_PX, HEAD_PX, TITLE_PX, GAP_PX = 92, 68, 100, 40, 32
INK, GREY, PAPER = (28, 32, 38), (120, 126, 134), (255, 255, 255)
BLEED, UNSEEN = (204, 51, 34), (238, 240, 243)
RAMP = (
    (244, 247, 250),
    (158, 202, 225),
    (33, 113, 181),
    (8, 48, 107),
)  # light to dark blue, similarity 0 to 1

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#f0c000")
PLOT_WIDTH, PLOT_HEIGHT = 420, 130

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2026;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-top:1px solid #dde1e6;padding-top:1rem}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.25rem .5rem;text-align:right}
th{color:#6b7280;font-weight:500}td:first-child,th:first-child{text-align:left}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:2rem}.pair table{width:100%}
tr+tr td{border-top:1px solid #eceff2}.note{color:#6b7280;max-width:46rem}img{max-width:100%}
.low{color:#cc3322;font-weight:600}svg{width:100%}
"""

NOTE = """Row i, column j: how much the face seen at character i looks like the references of character j, as cosine
similarity averaged over the frames where i was seen. The diagonal is likeness; everything else is bleed, outlined
where it reaches the recogniser's own same-person threshold. Margin: own likeness minus the best other's. Coverage:
frames with a face at the character. Recognised: share of all frames in which that face is the character. A dash
means that nobody was seen."""


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


def page(titles: Sequence[str], evaluations: Iterable[Evaluation], references: Mapping[str, U8]) -> str:
    """The HTML of some videos' evaluations, pictures inside."""
    parts = [f"<!doctype html><meta charset=utf-8><title>castbank evaluation</title><style>{STYLE}</style>"]
    parts.append(f"<h1>Who is recognisable, and who bled into whom</h1><p class=note>{NOTE}</p>")
    for title, evaluation in zip(titles, evaluations, strict=True):
        by = {
            "layout": "a face belongs to the region that it lies in",
            "similarity": "faces are given by likeness",
        }
        parts.append(f"<h2>{html.escape(title)}</h2>")
        parts.append(
            f"<p class=note>{evaluation.num_frames} frames, {evaluation.num_faces:.2f} faces a frame; "
            f"{by[evaluation.located_by]}.</p>"
        )
        picture = base64.b64encode(png(matrix_picture(evaluation, references))).decode()
        parts.append(f'<img alt="similarity matrix" src="data:image/png;base64,{picture}">')
        halves = [_table(evaluation.cast, s) + _timeline(evaluation.cast, s) for s in evaluation.scores]
        parts.append("<div class=pair>" + "".join(f"<div>{half}</div>" for half in halves) + "</div>")
    return "\n".join(parts)


def _table(cast: Sequence[str], scores: Scores) -> str:
    rows = []
    for i, name in enumerate(cast):
        own = float(scores.similarity[i, i])
        mark = " class=low" if not own >= scores.same_person else ""
        cells = (_number(float(v)) for v in (scores.margin[i], scores.coverage[i], scores.recognised[i]))
        rows.append(
            f"<tr><td>{html.escape(name)}<td{mark}>{_number(own)}" + "".join(f"<td>{cell}" for cell in cells)
        )
    return (
        f"<table><tr><th>{html.escape(scores.pack)}<th>likeness<th>margin<th>coverage<th>recognised"
        + "".join(rows)
        + f"</table><p class=note>Swap rate {_number(scores.swap_rate)}</p>"
    )


def _timeline(cast: Sequence[str], scores: Scores) -> str:
    """Own similarity over the frames as an inline SVG: a gap where a character is not seen."""
    limit = _height(scores.same_person)
    lines = [
        f'<rect width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}" rx="6" fill="#f6f8fa"/>',
        f'<path d="M0 {limit:.1f}H{PLOT_WIDTH}" stroke="#888" stroke-dasharray="4 4"/>',
        f'<text x="6" y="{limit - 4:.1f}" font-size="11" fill="#888">same person</text>',
    ]
    for i, name in enumerate(cast):
        colour = COLOURS[i % len(COLOURS)]
        path = _path(scores.own[:, i])
        lines.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(
            f'<text x="{PLOT_WIDTH + 8}" y="{16 + 16 * i}" font-size="12" fill="{colour}">'
            f"{html.escape(name)}</text>"
        )
    view = f"0 0 {PLOT_WIDTH + 90} {max(PLOT_HEIGHT, 8 + 16 * len(cast))}"
    return f'<svg viewBox="{view}">{"".join(lines)}</svg>'


def _path(values: F64) -> str:
    steps, drawing = [], False
    for t, value in enumerate(values):
        if math.isfinite(value):
            x = PLOT_WIDTH * (t + 0.5) / len(values)
            steps.append(f"{'L' if drawing else 'M'}{x:.1f} {_height(float(value)):.1f}")
        drawing = math.isfinite(value)
    return "".join(steps)


def _height(value: float) -> float:
    """Similarity −0.2 … 1 to a place from the plot's bottom to its top."""
    return PLOT_HEIGHT * (1 - (min(max(value, -0.2), 1.0) + 0.2) / 1.2)


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def png(image: U8) -> bytes:
    """u8[H,W,3] as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()
