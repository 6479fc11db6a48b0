"""The ledger as one self-contained page: what became of every item, what fails most, and how to try again.

Of a ledger of millions of rows the page shows every rule with its count, and some items of each, so that it opens
at once; the rest is in the Parquet beside it.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from data_prep import ledger
from data_prep.atomic import write_atomic
from data_prep.records import Decision

PAGE = "ledger.html"
FATES = ("kept", "dropped", "quarantined")
MOST_QUARANTINED = 200  # shown with what they wrote to stderr
MOST_OF_A_RULE = 50  # dropped items that are named
NOTHING = '<p class="note">Nothing.</p>'


def write_both(folder: Path, decisions: Sequence[Decision]) -> None:
    """Write the ledger and its page into ``folder``, which is made where it is not there."""
    folder.mkdir(exist_ok=True)
    ledger.write(folder / ledger.LEDGER, decisions)
    write_atomic(folder / PAGE, page(decisions).encode())


def page(decisions: Sequence[Decision]) -> str:
    """The page of these decisions: same content in any order, same text."""
    ordered = sorted(decisions, key=lambda why: (why.kind, why.stage, why.rule, why.item, why.value))
    quarantined = [why for why in ordered if why.fate == "quarantined"]
    groups: dict[tuple[str, str, str], list[Decision]] = defaultdict(list)
    for why in ordered:
        if why.fate == "dropped":
            groups[why.kind, why.stage, why.rule].append(why)
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    template = Template(files("data_prep.ledger").joinpath("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        lead=escape(_lead(ordered, quarantined)),
        fates=_fates(ordered),
        rules=_rules(ranked, Counter(why.kind for why in ordered)),
        quarantined=_quarantined(quarantined),
        dropped_note=f"At most {MOST_OF_A_RULE} of each rule; every one is in ledger.parquet.",
        dropped="".join(_dropped(rule, items) for rule, items in ranked) or NOTHING,
    )


def _lead(decisions: Sequence[Decision], quarantined: Sequence[Decision]) -> str:
    said = f"{len(decisions)} decisions."
    if quarantined:
        said += f" What failed: {ledger.failing_most(quarantined)}."
    return said


def _fates(decisions: Sequence[Decision]) -> str:
    counts: Counter[tuple[str, str]] = Counter((why.kind, why.fate) for why in decisions)
    kinds = sorted({why.kind for why in decisions})
    rows = [[kind, *(str(counts[kind, fate]) for fate in FATES)] for kind in kinds]
    return _table(("what", *FATES), rows, numbers=FATES)


def _rules(ranked: Sequence[tuple[tuple[str, str, str], list[Decision]]], num_of_kind: Counter[str]) -> str:
    rows = []
    for (kind, stage, rule), items in ranked:
        share = len(items) / num_of_kind[kind]
        limits = " / ".join(sorted({item.limit for item in items if item.limit})[:3])
        rows.append(
            f'<tr><td class="number">{len(items)}</td><td class="share"><i style="width:{share:.1%}"></i></td>'
            f'<td class="number">{share:.1%}</td><td>{kind}</td><td>{escape(stage)}</td>'
            f'<td><code>{escape(rule)}</code></td><td class="number">{escape(_median(items))}</td>'
            f"<td>{escape(limits)}</td></tr>"
        )
    if not rows:
        return NOTHING
    names = "".join(f"<th>{name}</th>" for name in ("of these", "what", "stage", "rule", "median", "limit"))
    head = f'<tr><th class="number">items</th><th></th>{names}</tr>'
    return f'<div class="card"><table>{head}{"".join(rows)}</table></div>'


def _median(items: Iterable[Decision]) -> str:
    """Of the numbers that the items had, where they are numbers."""
    try:
        return f"{statistics.median(float(item.value.split()[0]) for item in items):g}"
    except (ValueError, IndexError):
        return ""


def _quarantined(items: Sequence[Decision]) -> str:
    shown = []
    for why in sorted(items, key=lambda why: (why.error_class, why.item))[:MOST_QUARANTINED]:
        attempts = f"{why.attempts} attempt{'s' * (why.attempts != 1)}"
        shown.append(
            f'<details class="card"><summary><code>{escape(why.item)}</code> {escape(why.error_class)} in '
            f'{escape(why.stage)}, {attempts}</summary><div style="padding:0 16px 14px">'
            f'<pre class="command">{escape(why.replay)}</pre><pre>{escape(why.detail)}</pre></div></details>'
        )
    if len(items) > MOST_QUARANTINED:
        shown.append(f'<p class="note">and {len(items) - MOST_QUARANTINED} more, in ledger.parquet</p>')
    return "".join(shown) or NOTHING


def _dropped(rule: tuple[str, str, str], items: Sequence[Decision]) -> str:
    kind, stage, name = rule
    rows = [[why.item, why.value, why.limit, why.detail] for why in items[:MOST_OF_A_RULE]]
    return (
        f'<details class="card"><summary><code>{escape(name)}</code> {len(items)} of kind {kind}, in '
        f"{escape(stage)}</summary>{_table(('item', 'came', 'allowed', 'detail'), rows)}</details>"
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    kinds = [' class="number"' * (name in numbers) for name in names]
    head = "".join(f"<th{kind}>{name}</th>" for name, kind in zip(names, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="card"><table><tr>{head}</tr>{body}</table></div>'
