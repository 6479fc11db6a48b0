"""castbank generate: a trained run, a prompt and a cast to an mp4, its contact sheet and a note to repeat it."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from data_prep.records import InputError
from jobs import config as configs
from jobs import knobs
from jobs.drawing import Request, check_request, draw, key_of, open_run
from jobs.layouts import FORMS, read_anchor, read_layouts, read_picture
from jobs.outputs import check_file
from jobs.progress import ProgressBar
from pipeline.config import GenerateConfig
from pipeline.generating.limits import check_strength
from pipeline.strategies import names as strategies

SUMMARY = f"""Generate a video with the characters of a run's bank.

Writes OUTPUT (mp4), OUTPUT with .png for .mp4 (contact sheet), with .json (all that is needed to repeat it) and, of
an anchor or keyframes drawn on the way, with .NAME.png. Frames, size, fps and the window of longer videos are those
that the run was trained at, unless given.

--prompts FILE.jsonl draws many on every GPU, else every core, of this machine or of the Ray that RAY_ADDRESS names:
a line has prompt and, as it needs them, cast (a list), output, references (name to a list of pictures), layout,
anchor (a picture, or "previous": the last frame of the line before) and any key below. What is there is kept.

strategies for --strategy, several with + between, one of those that decide the same:
{strategies.describe()}
without bank, two-paths or lock in a mix, the prompt alone tells the model of the cast."""

EXAMPLE = "castbank generate runs/first seed=3 --prompt 'anna talks to ben' --cast anna,ben --output out.mp4"

ALLOWED = {  # key: least and greatest value
    "num_frames": (1, math.inf),
    "height_px": (1, math.inf),
    "width_px": (1, math.inf),
    "fps": (0.1, 1000),
    "steps": (1, 1000),
    "strength": (0, math.inf),
    "guidance": (0, math.inf),
    "strategy.window": (0, math.inf),
    "strategy.history": (0, math.inf),
    "strategy.keyframes": (0, math.inf),
    "strategy.bias": (0, math.inf),
    "strategy.look_steps": (1, 1000),
    "strategy.painter_steps": (1, 1000),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this verb."""
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="folder of a finished run, or its export"
    )
    parser.add_argument("--prompt", help="what happens; one sentence per character, in the cast's order")
    parser.add_argument(
        "--cast", default="", help="names, comma between; none: those of --reference, else nobody"
    )
    parser.add_argument(
        "--reference",
        action="append",
        default=[],
        metavar="NAME=PICTURE",
        help="somebody who is not in the bank, by a picture of the face; 1 to 5 for each name, more is better",
    )
    parser.add_argument(
        "--bank", type=Path, help="another bank than the run's own, as castbank bank merge makes"
    )
    parser.add_argument("--layout", type=Path, help=FORMS)
    parser.add_argument(
        "--anchor",
        type=Path,
        help="picture of the video's size: its first frame (an image-to-video model wants one)",
    )
    parser.add_argument(
        "--strategy", metavar="NAME", help="the same as strategy.name=NAME: how the cast is kept the same"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the mp4 to write (default generated.mp4); with --prompts a folder (generated)",
    )
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE.jsonl", help="many videos, a JSON object a line; see above"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="of --prompts, processes; 0 (the default): one per core",
    )
    knobs.add_arguments(parser, GenerateConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Generates; 0, or InputError before anything is written."""
    config = config_of(args)
    if args.prompts is not None:
        from jobs.generate_batch import draw_file

        return draw_file(args, config)
    if args.prompt is None:
        raise InputError("--prompt: none came; say what happens, or give many with --prompts FILE.jsonl")
    output = args.output or Path("generated.mp4")
    check_file("--output", output, ".mp4")
    request = Request(
        run=args.run_folder,
        prompt=args.prompt,
        cast=names_of(args.cast),
        output=output,
        config=config,
        bank=args.bank,
        references=tuple(parse_reference(text) for text in args.reference),
        layout=args.layout,
        anchor=args.anchor,
    )
    check_request(request)
    _check_files(request)
    loaded = open_run(args.run_folder, args.bank)
    with ProgressBar() as progress:
        drawn = draw(loaded, request, progress)
    who = ", ".join(request.names) or "nobody known"
    size = f"{len(drawn.frames)} frames of {config.width_px}x{config.height_px}"
    sys.stdout.write(f"{output}: {size} with {who}\n")
    return 0


def config_of(args: argparse.Namespace) -> GenerateConfig:
    """The configuration that the arguments say, over what the run was trained at."""
    chosen = [] if args.strategy is None else [f"strategy.name={args.strategy}"]
    overrides = [*args.overrides, *chosen]
    config = configs.load(GenerateConfig, args.config, overrides, usual_of(args.run_folder))
    check_config(config)
    return config


def check_config(config: GenerateConfig) -> None:
    """Raise InputError for values that no video can have."""
    check_strength(config.strength)
    configs.check_ranges(config, ALLOWED)
    strategies.parse(config.strategy.name)
    key_of(config)


def names_of(text: str) -> tuple[str, ...]:
    """Names with commas between."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse_reference(text: str) -> tuple[str, Path]:
    """NAME=PICTURE; raises InputError for anything else."""
    name, equals, path = text.partition("=")
    if not (name.strip() and equals and path):
        raise InputError(
            f"--reference: came {text!r}; give NAME=PICTURE, once for each picture of a character"
        )
    return name.strip(), Path(path)


def usual_of(run_folder: Path) -> dict[str, Any]:
    """What the run was trained on, in place of the schema's defaults."""
    from pipeline.exports.export import last_seen

    seen = last_seen(run_folder)
    return {} if seen is None else {**dataclasses.asdict(seen), "strategy": {"window": seen.num_frames}}


def _check_files(request: Request) -> None:
    """Read what is given once before the model is loaded, which may take minutes."""
    if request.layout is not None:
        read_layouts(request.layout, request.names, request.config)
    if request.anchor is not None:
        read_anchor(request.anchor)
    for _, path in request.references:
        read_picture("--reference", path)
