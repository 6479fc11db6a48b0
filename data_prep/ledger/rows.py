"""The ledger's rows, one per item and decision: written, read and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from data_prep.records import Decision

LEDGER = "ledger.parquet"
MOST_CLASSES = 5  # of errors that a sentence names


def write(path: Path, decisions: Iterable[Decision]) -> None:
    """Write the decisions ordered by kind, item and stage: the same decisions give the same bytes."""
    import pyarrow
    import pyarrow.parquet

    rows = [asdict(decision) for decision in sorted(decisions, key=_order)]
    names = [field.name for field in fields(Decision)]
    types = {name: pyarrow.int32() if name == "attempts" else pyarrow.string() for name in names}
    columns = {name: pyarrow.array([row[name] for row in rows], types[name]) for name in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")


def read(path: Path) -> list[Decision]:
    """The decisions of a ledger, in its order."""
    import pyarrow.parquet

    return [Decision(**row) for row in pyarrow.parquet.read_table(path).to_pylist()]


def count_by_rule(decisions: Sequence[Decision]) -> dict[str, int]:
    """Number of dropped and quarantined items by ``kind: rule``, the most frequent first."""
    lost = Counter(f"{d.kind}: {d.rule}" for d in decisions if d.fate != "kept")
    return dict(sorted(lost.items(), key=lambda item: (-item[1], item[0])))


def failing_most(quarantined: Sequence[Decision]) -> str:
    """``TimeoutError 12, WorkerCrashedError 3``: the error classes, the most frequent first."""
    counts = Counter(why.error_class for why in quarantined)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(ranked) - MOST_CLASSES} other kinds" * (len(ranked) > MOST_CLASSES)
    return ", ".join(f"{name} {count}" for name, count in ranked[:MOST_CLASSES]) + more


def _order(decision: Decision) -> tuple[str, ...]:
    return decision.kind, decision.item, decision.stage, decision.fate, decision.rule, decision.value
