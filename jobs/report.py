"""``castbank report``: a shard folder as an HTML page to look at, or checked to the last byte."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_prep.records import InputError
from jobs.outputs import check_file

SUMMARY = """Shards to an HTML page: contact sheets with masks and identities, each sample's references with their
origin, what was left out and why, distributions. The page stands alone and can be mailed; further samples and
people are on pages beside it, in report.pages/, so that it opens at once however many there are.

example: castbank report shards --output look.html --samples 200"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("shards", metavar="SHARDS", type=Path, help="folder that castbank prepare wrote")
    parser.add_argument("--output", metavar="HTML", type=Path, help="default: SHARDS/report.html")
    parser.add_argument(
        "--check", action="store_true", help="read every sample instead and name each one that is damaged"
    )
    parser.add_argument(
        "--samples", metavar="N", type=_count, default=96, help="samples shown, 24 on a page (96)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from data_prep.report import write_report
    from jobs.progress import ProgressBar

    output = args.output or args.shards / "report.html"
    if not args.shards.is_dir():
        raise InputError(f"shards {str(args.shards)!r}: no such folder; give one that castbank prepare wrote")
    if args.check:
        return _check(args.shards)
    check_file("--output", output, ".html")
    with ProgressBar() as progress:
        write_report(args.shards, output, progress, args.samples)
    sys.stdout.write(f"{output} ({output.stat().st_size / 1e6:.1f} MB); open it in a browser\n")
    return 0


def _check(folder: Path) -> int:
    """Every sample read as training reads it, and each that cannot be, by its key."""
    from data_prep.shards import ShardSet
    from jobs.progress import ProgressBar

    shards = ShardSet.open(folder, "all")
    bad: list[str] = []
    with ProgressBar() as progress:
        for at in range(len(shards)):
            try:
                shards.read(at)
            except InputError as error:
                bad.append(str(error))
            progress("check", at + 1, len(shards))
    if bad:
        raise InputError("\n".join([f"{len(bad)} of {len(shards)} samples cannot be read:", *bad]))
    num_bytes = sum(shard.num_bytes for shard in shards.manifest.shards)
    sys.stdout.write(f"{len(shards)} samples in {num_bytes / 1e6:.1f} MB are what the index says\n")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
