"""What could not be analysed, remembered: a file each in the output's ``.work/failed``, named as the analysis is.

A clip that hangs costs its attempts once, and not again in every run that goes on from where another was stopped.
``castbank prepare --replay`` forgets some, so that they are tried again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path

from data_prep import ledger
from data_prep.atomic import write_atomic
from data_prep.records import Decision, InputError

FAILED = "failed"
ALL = "all"
MOST_NAMED = 5


class Quarantine:
    """The quarantined clips of an output. ``work``: its ``.work``; names of files are those of the analyses."""

    def __init__(self, work: Path) -> None:
        self._folder = work / FAILED

    def known(self, names: Sequence[str]) -> dict[str, Decision]:
        """Why each of these failed that did, by name; a record that is damaged is worth nothing."""
        there = {path.stem for path in self._folder.glob("*.json")}
        found = {}
        for name in names:
            if name in there:
                try:
                    found[name] = Decision(**json.loads(self._path(name).read_text(encoding="utf-8")))
                except (ValueError, TypeError):
                    self._path(name).unlink()
        return found

    def add(self, name: str, why: Decision) -> None:
        """Remember it, on the disk."""
        write_atomic(self._path(name), json.dumps(asdict(why), ensure_ascii=False, indent=1).encode())

    def forget(self, names: Sequence[str]) -> None:
        """Let these be tried again."""
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def keep_only(self, names: set[str]) -> None:
        """Remove what belongs to other clips, other contents or other configurations."""
        self.forget([path.stem for path in self._folder.glob("*.json") if path.stem not in names])
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            shutil.rmtree(self._folder)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def chosen(replay: str, quarantined: Mapping[str, Decision], clip_ids: Set[str]) -> list[str]:
    """Those of ``quarantined``, by name, that are to be tried again.

    Args:
        replay: ``all``, or clip ids and error classes with commas between, or the path of a ledger, which stands
            for the clips that are quarantined in it.
        quarantined: why each failed, by name.
        clip_ids: of all clips; to name one that is not quarantined (any more) is no mistake.

    Raises:
        InputError: a word is none of that.
    """
    words = {word.strip() for word in replay.split(",") if word.strip()}
    if words == {ALL}:
        return list(quarantined)
    if replay.endswith(".parquet"):
        words = _of_ledger(Path(replay))
        return [name for name, why in quarantined.items() if why.item in words]
    unknown = (
        words - {word for why in quarantined.values() for word in (why.item, why.error_class)} - clip_ids
    )
    if unknown or not words:
        raise InputError(_not_there(min(unknown, default=""), quarantined))
    return [name for name, why in quarantined.items() if {why.item, why.error_class} & words]


def _of_ledger(path: Path) -> set[str]:
    import pyarrow

    try:
        return {row.item for row in ledger.read(path) if row.fate == "quarantined"}
    except (OSError, pyarrow.ArrowInvalid, TypeError) as error:
        raise InputError(
            f"--replay {str(path)!r}: no ledger can be read there ({str(error).splitlines()[0]}); give the "
            "ledger.parquet of a preparation, clip ids, error classes, or 'all'"
        ) from error


def _not_there(word: str, quarantined: Mapping[str, Decision]) -> str:
    ids = sorted(why.item for why in quarantined.values())
    more = f" and {len(ids) - MOST_NAMED} more" * (len(ids) > MOST_NAMED)
    there = (
        f"quarantined are {', '.join(ids[:MOST_NAMED])}{more} (by error class: "
        f"{ledger.failing_most(list(quarantined.values()))})"
        if ids
        else "no clip is quarantined here"
    )
    return (
        f"--replay: came {word!r}, which is no quarantined clip and no error class of one; {there}, or 'all'"
    )
