"""``castbank bank``: look at an identity bank, put banks together, take characters out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.records import InputError
from jobs.outputs import check_folder
from jobs.tables import aligned

if TYPE_CHECKING:
    from pipeline.identity.bank import BankEntry, IdentityBank
    from pipeline.identity.likeness import Likeness

SUMMARY = """Identity banks: what a run knows of its characters. FOLDER is a bank, an export or a finished run.

examples:
  castbank bank list runs/first
  castbank bank show runs/first anna
  castbank bank merge runs/first runs/second --output cast --rename anna=anna_2
  castbank bank merge runs/first runs/second --output cast --network runs/first
  castbank bank remove runs/first anna     (consent withdrawn: her file is deleted)

A bank's tokens mean something to the network that made them alone. merge refuses to mix; with --network RUN it
makes all tokens anew, from the references, for that run. castbank generate RUN --bank cast draws with them."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``castbank bank``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="one line per character")
    shown = actions.add_parser("show", help="all that is known of one character, and who looks alike")
    for each in (listed, shown):
        each.add_argument("folder", type=Path, metavar="FOLDER", help="a bank, an export or a finished run")
        each.add_argument("--json", action="store_true", help="as JSON, for scripts")
    shown.add_argument("name", metavar="NAME")
    merged = actions.add_parser("merge", help="several banks as one")
    merged.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    merged.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of the new bank")
    merged.add_argument(
        "--rename", action="append", default=[], metavar="OLD=NEW", help="in the last bank with an OLD"
    )
    merged.add_argument("--network", type=Path, metavar="RUN", help="make all tokens anew with its network")
    removed = actions.add_parser("remove", help="take characters out and delete their files")
    removed.add_argument("folder", type=Path, metavar="FOLDER")
    removed.add_argument("names", nargs="+", metavar="NAME")


def run(args: argparse.Namespace) -> int:
    """Do one action; raises InputError on what a person can mend."""
    {"list": _list, "show": _show, "merge": _merge, "remove": _remove}[args.action](args)
    return 0


def _list(args: argparse.Namespace) -> None:
    entries = _read(args.folder).entries.values()
    if args.json:
        _say(json.dumps([_facts(entry) for entry in entries], ensure_ascii=False, indent=2))
        return
    head = ("NAME", "REFERENCES", "TOKENS", "CONSENT", "LICENCE", "PACK", "NETWORK", "DESCRIPTION")
    lines: list[tuple[str, ...]] = [head]
    for entry in entries:
        facts = _facts(entry)
        cells = [str(facts[column.lower()]) or "-" for column in head[:-1]]
        lines.append((*cells, entry.description))
    sys.stdout.write(aligned(lines) if len(lines) > 1 else "nobody\n")


def _facts(entry: BankEntry) -> dict[str, Any]:
    """What there is to say of one character in short."""
    return {
        "name": entry.name,
        "references": len(entry.references),
        "tokens": "x".join(map(str, entry.tokens.shape)),
        "consent": entry.consent,
        "licence": entry.licence,
        "pack": entry.pack,
        "network": entry.network,
        "description": entry.description,
        "picture": "kept" if entry.picture is not None else "",
    }


def _show(args: argparse.Namespace) -> None:
    from data_prep.faces.packs import PACKS
    from pipeline.identity import likeness

    bank = _read(args.folder)
    entry = bank.entry(args.name)
    own, others = likeness.own(entry), likeness.others(entry, bank.entries.values())
    threshold = PACKS[entry.pack].same_person if entry.pack in PACKS else None
    warnings = _warnings(own, others, threshold)
    if args.json:
        shown = {
            **_facts(entry),
            "provenance": entry.provenance,
            "same_person": threshold,
            "own_similarity": vars(own) if own else None,
            "others": [vars(other) for other in others],
            "warnings": warnings,
        }
        _say(json.dumps(shown, ensure_ascii=False, indent=2))
        return
    for name, value in _facts(entry).items():
        _say(f"{name:12} {value or '-'}")
    for place in entry.provenance:
        _say(f"{'reference':12} {place}")
    _say(f"{'own':12} {_words(own) if own else 'a single reference: nothing to compare'}")
    for other in others[:3]:
        _say(f"{'nearest':12} {other.name}: {_words(other)}")
    for warning in warnings:
        _say(f"warning: {warning}")


def _words(likeness: Likeness) -> str:
    return f"cosine {likeness.mean:.2f} on average, {likeness.least:.2f} to {likeness.most:.2f}"


def _warnings(own: Likeness | None, others: list[Likeness], threshold: float | None) -> list[str]:
    """What a person should look at before drawing with this character; empty where the pack has no threshold."""
    if threshold is None:
        return []
    found = [
        f"looks like {other.name}: a pair of references at {other.most:.2f}, the same person from {threshold:.2f}; "
        "they will be hard to tell apart"
        for other in others
        if other.most >= threshold
    ]
    if own is not None and own.least < threshold:
        found.append(
            f"two references are only {own.least:.2f} alike, the same person from {threshold:.2f}: are all of them "
            "this character?"
        )
    return found


def _merge(args: argparse.Namespace) -> None:
    from pipeline.identity.bank import unnamed
    from pipeline.identity.merge import merge
    from pipeline.identity.tokens import read_encoder, remade

    if len(set(args.folders)) < 2:
        raise InputError("merge: give at least two different banks")
    renames = dict(_rename(text) for text in args.rename)
    check_folder("--output", args.output)
    if args.output.is_dir() and set(args.output.iterdir()) - set(unnamed(args.output, [])):
        raise InputError(f"--output: {str(args.output)!r} is not empty; give a new folder")
    banks = {folder: _read(folder) for folder in args.folders}
    if args.network is not None:
        export = args.network / "export" if (args.network / "export").is_dir() else args.network
        encoder = read_encoder(export)
        banks = {folder: remade(bank, encoder) for folder, bank in banks.items()}
    bank = merge(banks, renames)
    bank.save(args.output)
    _say(f"{args.output}: {len(bank.entries)} characters: {', '.join(bank.entries)}")


def _rename(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise InputError(f"--rename: came {text!r}; give OLD=NEW")
    return old, new


def _remove(args: argparse.Namespace) -> None:
    from pipeline.identity.bank import find_bank, remove

    folder = find_bank(args.folder)
    count = remove(folder, args.names)
    files = f"{count} file{'s' * (count != 1)}"
    _say(f"{folder}: {', '.join(args.names)} taken out, {files} deleted; copies and shards are not touched")


def _read(folder: Path) -> IdentityBank:
    from pipeline.identity.bank import IdentityBank, find_bank

    return IdentityBank.load(find_bank(folder))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
