"""The pieces of the page that repeat: number tiles, character and sample cards, tables of what was left out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from html import escape

from data_prep.records import Decision
from data_prep.shards import ReferenceNote, Sample

ORIGINS = {"other_clip": "other clip", "other_shot": "other shot", "same_shot": "same shot"}
MOST_ITEMS = 500  # rows of the item list; the rest is in the ledger


def number_tiles(numbers: Sequence[tuple[str, str]]) -> str:
    """Big number over a word."""
    return "".join(
        f'<div class="card"><b>{escape(n)}</b><span>{escape(what)}</span></div>' for n, what in numbers
    )


LAZY = 'loading="lazy" decoding="async" alt'  # of an <img>: nothing is decoded before it comes into view


def character_card(
    who: tuple[str, str], about: str, faces: Sequence[str], samples: Sequence[tuple[str, str]]
) -> str:
    """who: id and colour; faces: data URIs; samples: address and key of some that are shown."""
    name, colour = who
    images = "".join(f'<img src="{face}" {LAZY}="">' for face in faces)
    links = " ".join(f'<a href="{escape(where)}">{escape(key)}</a>' for where, key in samples)
    return (
        f'<div class="card person" style="--id:{colour}"><h3><code>{escape(name)}</code></h3>'
        f'<p>{escape(about)}</p><div class="faces">{images}</div>{f"<p>{links}</p>" if links else ""}</div>'
    )


def sample_card(sample: Sample, colours: Sequence[str], sheet: str, pictures: Sequence[Sequence[str]]) -> str:
    """colours: per slot; sheet: data URI of the contact sheet; pictures: per slot the references' data URIs."""
    note = sample.note
    size = f"{note.width_px} x {note.height_px}, {len(note.frames)} frames at {note.fps:g}/s"
    slots = []
    for at, member in enumerate(note.cast):
        faces = zip(note.references[at], pictures[at], strict=True)
        shown = "".join(_reference(reference, uri) for reference, uri in faces)
        seen = sum(box is not None for box in note.boxes_px[at])
        slots.append(
            f'<div class="slot" style="--id:{colours[at]}"><div>{_tag(member.slot, colours[at])}'
            f"<small><code>{escape(member.character_id)}</code><br>"
            f"seen in {seen} of {len(note.frames)}</small></div>"
            f'<div class="references">{shown}</div></div>'
        )
    where = f"{escape(note.source_id)} · {note.start_s:.2f} to {note.end_s:.2f} s · {size}"
    return (
        f'<article class="card sample" id="{escape(note.key)}"><header><h3><code>{escape(note.key)}</code></h3>'
        f"<span>{where}</span></header>"
        f'<img src="{sheet}" {LAZY}="frames of {escape(note.key)}">'
        f'<p class="caption">{_caption(sample.caption, colours)}</p>'
        f'<div class="slots">{"".join(slots)}</div></article>'
    )


def lost_table(decisions: Sequence[Decision]) -> str:
    """One row per rule that dropped or quarantined something."""
    groups: dict[tuple[str, str, str, str], list[Decision]] = defaultdict(list)
    for decision in decisions:
        if decision.fate != "kept":
            groups[decision.kind, decision.fate, decision.stage, decision.rule].append(decision)
    rows = []
    for (kind, fate, stage, rule), items in sorted(
        groups.items(), key=lambda group: (-len(group[1]), group[0])
    ):
        limits = " / ".join(sorted({item.limit for item in items if item.limit})[:3])
        rows.append(
            f'<tr><td class="number">{len(items)}</td><td>{kind}</td><td>{_fate(fate)}</td><td>{escape(stage)}</td>'
            f"<td><code>{escape(rule)}</code></td><td>{escape(limits)}</td></tr>"
        )
    if not rows:
        return '<p class="note">Nothing.</p>'
    names = "".join(f"<th>{name}</th>" for name in ("what", "fate", "stage", "rule", "limit"))
    head = f'<tr><th class="number">items</th>{names}</tr>'
    return f'<div class="card"><table>{head}{"".join(rows)}</table></div>'


def lost_items(decisions: Sequence[Decision]) -> str:
    """Every item that was left out, folded away."""
    lost = [decision for decision in decisions if decision.fate != "kept"]
    if not lost:
        return ""
    rows = []
    for item in lost[:MOST_ITEMS]:
        detail = "\n".join(text for text in (item.error_class, item.detail, item.replay) if text)
        rows.append(
            f"<tr><td><code>{escape(item.item)}</code></td><td><code>{escape(item.rule)}</code></td>"
            f"<td>{escape(item.value)}</td><td>{escape(item.limit)}</td>"
            f'<td class="detail">{escape(detail)}</td></tr>'
        )
    head = "<tr><th>item</th><th>rule</th><th>came</th><th>allowed</th><th>detail</th></tr>"
    some = f"first {MOST_ITEMS} of " if len(lost) > MOST_ITEMS else ""
    return (
        f'<details class="card"><summary>Every item ({some}{len(lost)})</summary>'
        f"<table>{head}{''.join(rows)}</table></details>"
    )


def _reference(note: ReferenceNote, uri: str) -> str:
    gap = "another source" if note.time_gap_s is None else f"{note.time_gap_s:.1f} s away"
    yaw, turn = round(note.yaw_deg), round(note.yaw_difference_deg)
    clip = escape(note.clip_id)
    return (
        f'<div class="reference"><img src="{uri}" {LAZY}=""><div title="{clip}"><b>{ORIGINS[note.origin]}</b>'
        f"<br>{clip}<br>{gap}<br>cosine <b>{note.similarity:.2f}</b><br>yaw {yaw:+d}° ({turn:+d}°)</div></div>"
    )


def _caption(text: str, colours: Sequence[str]) -> str:
    """The caption with every slot token as a tag in its colour."""
    parts = re.split(r"<person-(\d+)>", text)
    shown = [escape(parts[0])]
    for number, rest in zip(parts[1::2], parts[2::2], strict=True):
        slot = int(number)
        shown.append(_tag(slot, colours[slot - 1]) if 0 < slot <= len(colours) else f"&lt;person-{slot}&gt;")
        shown.append(escape(rest))
    return "".join(shown)


def _tag(slot: int, colour: str) -> str:
    return f'<span class="tag" style="background:{colour}">person {slot}</span>'


def _fate(fate: str) -> str:
    return f'<span class="fate {fate}">{fate}</span>'
