"""The proof to look at: goals, tables, who was taken for whom, and the same scenes as every row draws them."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.records import F64
from jobs.proving.casting import HELD_OUT_PAIRS, PEOPLE
from jobs.proving.config import ProofConfig
from jobs.proving.drawing import PACKS
from jobs.proving.results import GROUPS, RowResult, goals, scenes_of
from jobs.proving.scoring import MISSING, Figures, confusion
from jobs.proving.training import Places
from pipeline.judging.intervals import Interval

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2026;max-width:1280px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-top:1px solid #dde1e6;padding-top:1rem}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.2rem .55rem;text-align:right;white-space:nowrap}
th{color:#6b7280;font-weight:500}td:first-child,th:first-child,td.text{text-align:left;white-space:normal}
tr+tr td{border-top:1px solid #eceff2}.note{color:#6b7280;max-width:56rem}small{color:#6b7280}
.met{color:#147a3d}.missed,.low{color:#c32}.scroll{overflow-x:auto}.many{display:flex;flex-wrap:wrap;gap:1.5rem}
td.cell{min-width:2.6rem;text-align:center}img{width:192px;image-rendering:auto;display:block}
.full td{font-weight:600}
"""

COLUMNS = {  # of a table: field of Figures to its heading, how it is written, and whether more is better
    "right": ("right face, right place", "{:.1%}"),
    "recognised": ("recognised", "{:.1%}"),
    "swap": ("swapped", "{:.1%}"),
    "margin": ("bleed margin", "{:+.3f}"),
    "likeness": ("likeness", "{:.3f}"),
    "coverage": ("coverage", "{:.1%}"),
    "steadiness": ("frame to frame", "{:.3f}"),
}

NOTE = """Right: share of the places asked for whose face is likest the character that was asked for there, of
everybody who plays, cast or not; a place without a face is wrong. Recognised: so by the recogniser's own
same-person threshold too. Swapped: of the faces seen, likest another of the cast. Bleed margin: likeness to whom it
should be minus that to the likest other of everybody; the least of any character stands beside it. Frame to frame:
cosine of the same place's face in successive frames, the drift of these short clips. Behind each mean stand the
bounds of its 95 % bootstrap interval over prompts and seeds: they speak of the videos of one training, not of other
trainings."""


def page(config: ProofConfig, results: Sequence[RowResult], everybody: Sequence[str], places: Places) -> str:
    """The whole page, with its pictures in it."""
    parts = [
        f"<h1>Who is who</h1><p class=note>{_setting(config)}</p>",
        f"<ul>{''.join(_goal(line) for line in goals(results, everybody))}</ul>",
        f"<p class=note>{NOTE}</p>",
    ]
    for group, title in GROUPS.items():
        rows = [found for found in results if group in found.groups()]
        for pack in PACKS if rows else ():
            role = "took no part in training: decides" if pack == PACKS[0] else "read by the bank in training"
            parts.append(f"<h2>{title[0].upper()}{title[1:]}: {pack} <small>{role}</small></h2>")
            parts.append(_table(rows, group, pack, everybody))
    parts.append("<h2>Whom each place was taken for, pairs never seen together</h2><div class=many>")
    parts += [_matrix(found, everybody) for found in results if found.row.trains]
    parts.append("</div><h2>The same scenes, the same first noise</h2>")
    parts.append(_pictures(results, places))
    body = "\n".join(parts)
    return f"<!doctype html><meta charset=utf-8><title>castbank proof</title><style>{STYLE}</style>{body}"


def _setting(config: ProofConfig) -> str:
    held_out = ", ".join(" and ".join(pair) for pair in HELD_OUT_PAIRS)
    return (
        f"{len(PEOPLE)} people and one more by LoRA; never together in training: {held_out}. Base "
        f"{config.base_steps} steps without identity, then {config.steps} steps a row from it; {config.seeds} "
        f"seeds a prompt, the same noises in all rows; {config.sampler_steps} steps a video. Right by chance: "
        f"1 of {len(PEOPLE)}, {1 / len(PEOPLE):.1%}."
    )


def _goal(line: str) -> str:
    kind = "missed" if line.startswith("MISSED") else "met"
    return f"<li class={kind}>{html.escape(line)}</li>"


def _table(rows: Sequence[RowResult], group: str, pack: str, everybody: Sequence[str]) -> str:
    head = "".join(f"<th>{title}</th>" for title, _ in COLUMNS.values())
    lines = []
    for found in rows:
        one = found.figures(group, pack, everybody)
        cells = "".join(f"<td>{_cell(one, name, how)}</td>" for name, (_, how) in COLUMNS.items())
        kind = " class=full" if found.row.name == "full" else ""
        title = html.escape(found.row.title)
        lines.append(f"<tr{kind}><td>{found.row.name}</td><td class=text>{title}</td>{cells}</tr>")
    num = rows[0].figures(group, pack, everybody).num_videos
    head = f"<tr><th>{num} videos</th><th></th>{head}</tr>"
    return f"<div class=scroll><table>{head}{''.join(lines)}</table></div>"


def _cell(one: Figures, name: str, how: str) -> str:
    value: Interval = getattr(one, name)
    if math.isnan(value.mean):
        return "-"
    text = how.format(value.mean)
    if not math.isnan(value.low):
        text += f" <small>{how.format(value.low)} to {how.format(value.high)}</small>"
    if name == "margin":
        known = {who: margin for who, margin in one.margin_of.items() if not math.isnan(margin)}
        who = min(known, key=lambda one: known[one])
        kind = " class=low" if known[who] <= 0 else ""
        text += f"<br><small{kind}>least {known[who]:+.3f}, {html.escape(who)}</small>"
    return text


def _matrix(found: RowResult, everybody: Sequence[str]) -> str:
    values = confusion([v for v in found.videos if v.group == "pairs"], PACKS[0], everybody)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in (*everybody, MISSING))
    rows = [_matrix_row(name, values[at]) for at, name in enumerate(everybody) if values[at].sum() > 0]
    return f"<div><b>{found.row.name}</b><table><tr><th>asked</th>{head}</tr>{''.join(rows)}</table></div>"


def _matrix_row(name: str, shares: F64) -> str:
    cells = "".join(
        f'<td class=cell style="background:rgba(33,113,181,{share:.2f});color:{_ink(share)}">{share:.0%}</td>'
        for share in shares
    )
    return f"<tr><td>{html.escape(name)}</td>{cells}</tr>"


def _ink(share: float) -> str:
    return "#fff" if share > 0.5 else "#1c2026"


def _pictures(results: Sequence[RowResult], places: Places) -> str:
    """Six scenes that every row has, one column each, both frames side by side."""
    scenes = scenes_of(results[0].row)
    shown = [k for k, one in enumerate(scenes) if one.group == "pairs"][::3]
    shown += [k for k, one in enumerate(scenes) if one.group == "trios"][::4]
    head = "".join(
        f"<th>{html.escape(', '.join(scenes[k].cast))}<br>{scenes[k].backdrop}</th>" for k in shown
    )
    lines = [
        f"<tr><td>{found.row.name}</td>{''.join(_images(found, shown, places))}</tr>" for found in results
    ]
    return f"<div class=scroll><table><tr><th></th>{head}</tr>{''.join(lines)}</table></div>"


def _images(found: RowResult, shown: Sequence[int], places: Places) -> Iterator[str]:
    for number in shown:
        path = places.output / "pictures" / found.row.name / f"{number:02d}.png"
        yield f"<td>{_image(path)}</td>"


def _image(path: Path) -> str:
    if not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="">'
