"""``castbank report``: a shard folder as one HTML page to look at."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SUMMARY = """Shards to one self-contained HTML page: contact sheets with masks and identities, each sample's
references with their origin, what was left out and why, distributions.

  castbank report shards
  castbank report shards --output look.html --samples 200"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("shards", metavar="SHARDS", type=Path, help="folder that castbank prepare wrote")
    parser.add_argument("--output", metavar="HTML", type=Path, help="default: SHARDS/report.html")
    parser.add_argument("--samples", metavar="N", type=_count, default=48, help="samples shown (48)")


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from data_prep.report import write_report
    from jobs.progress import ProgressBar

    with ProgressBar() as progress:
        output = write_report(args.shards, args.output or args.shards / "report.html", progress, args.samples)
    sys.stdout.write(f"{output} ({output.stat().st_size / 1e6:.1f} MB); open it in a browser\n")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
