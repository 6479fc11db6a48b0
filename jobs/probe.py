"""``castbank probe``: what a video is, what is unusual about it, and what castbank prepare would do with it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from data_prep.config import DecodeConfig
from data_prep.records import InputError
from jobs.knobs import add_arguments

SUMMARY = """What a video file is, what is unusual about it, and what castbank prepare would do with it: read it,
canonicalise it first, or refuse it by which rule (exit code 3)."""
EXIT_REFUSED = 3
EXAMPLE = "castbank probe clip.mp4 --read unusual.hdr=refuse"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("file", metavar="FILE", type=Path, help="a video")
    parser.add_argument("--read", action="store_true", help="also decode it to its end")
    add_arguments(parser, DecodeConfig, EXAMPLE)
    parser.epilog = f"{parser.epilog}\n\nIn castbank prepare these keys begin with decode."


def run(args: argparse.Namespace) -> int:
    """Print one fact a line."""
    from data_prep.video.probe import UnusableError
    from data_prep.video.reading import reading, treatment
    from jobs.config import load

    if not args.file.is_file():
        raise InputError(f"FILE {str(args.file)!r}: no such file; give a video")
    config = load(DecodeConfig, args.config, args.overrides)
    try:
        with reading(args.file, config) as source:
            sys.stdout.write(f"{source.medium}\nsha256 {source.found.fingerprint}\n")
            for trait, what in source.own.traits.items():
                sys.stdout.write(f"{trait}: {what}; {treatment(trait, config)}\n")
            sys.stdout.write(f"read by {source.decoder}\n")
            if args.read:
                frames = sum(len(chunk.frames) for chunk in source.chunks())
                sys.stdout.write(f"{frames} frames read, each with the time that the file gives it\n")
    except UnusableError as error:
        sys.stdout.write(f"refused by {error}\n")
        return EXIT_REFUSED
    return 0
