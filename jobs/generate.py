"""castbank generate: a trained run, a prompt and a cast to an mp4, its contact sheet and a note to repeat it."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_atomic
from jobs import config as configs
from jobs import knobs
from jobs.layouts import read_anchor, read_layout
from jobs.outputs import check_file
from jobs.progress import ProgressBar
from pipeline.config import GenerateConfig
from pipeline.strategies import names as strategies

if TYPE_CHECKING:
    from pipeline.strategies.drawing import Drawn

SUMMARY = f"""Generate a video with the characters of a run's bank.

Writes OUTPUT (mp4), OUTPUT with .png for .mp4 (contact sheet), with .json (all that is needed to repeat it) and, of
an anchor or keyframes drawn on the way, with .NAME.png. Frames, size, fps and the window of longer videos are those
that the run was trained at, unless given.

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
    parser.add_argument(
        "--prompt", required=True, help="what happens; one sentence per character, in the cast's order"
    )
    parser.add_argument(
        "--cast", default="", help="names in the run's bank, comma between; none: nobody known"
    )
    parser.add_argument(
        "--bank", type=Path, help="another bank than the run's own, as castbank bank merge makes"
    )
    parser.add_argument(
        "--layout", type=Path, help="grey PNG of the video's size: pixel k is the k-th of the cast's"
    )
    parser.add_argument(
        "--anchor",
        type=Path,
        help="picture of the video's size: its first frame (an image-to-video model wants one)",
    )
    parser.add_argument(
        "--strategy", metavar="NAME", help="the same as strategy.name=NAME: how the cast is kept the same"
    )
    parser.add_argument("--output", type=Path, default=Path("generated.mp4"), help="the mp4 to write")
    knobs.add_arguments(parser, GenerateConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Generates; 0, or InputError before anything is written."""
    usual = _usual(args.run_folder)
    chosen = [] if args.strategy is None else [f"strategy.name={args.strategy}"]
    config = configs.load(GenerateConfig, args.config, [*args.overrides, *chosen], usual)
    configs.check_ranges(config, ALLOWED)
    strategies.parse(config.strategy.name)
    key = _key(config)
    check_file("--output", args.output, ".mp4")
    layout = None if args.layout is None else read_layout(args.layout)
    anchor = None if args.anchor is None else read_anchor(args.anchor)

    from pipeline import generate
    from pipeline.strategies.drawing import draw

    names = tuple(name.strip() for name in args.cast.split(",") if name.strip())
    loaded = generate.load_run(args.run_folder, args.bank)
    scene = generate.scene_of(loaded, args.prompt, names)
    scene = dataclasses.replace(scene, layout=layout, anchor=anchor)
    with ProgressBar() as progress:
        drawn = draw(loaded.model, scene, config, progress, key)
    _write(args, config, names, drawn)
    who = ", ".join(names) or "nobody known"
    size = f"{len(drawn.frames)} frames of {config.width_px}x{config.height_px}"
    sys.stdout.write(f"{args.output}: {size} with {who}\n")
    return 0


def _usual(run_folder: Path) -> dict[str, Any]:
    """What the run was trained on, in place of the schema's defaults."""
    from pipeline.exports.export import last_seen

    seen = last_seen(run_folder)
    return {} if seen is None else {**dataclasses.asdict(seen), "strategy": {"window": seen.num_frames}}


def _key(config: GenerateConfig) -> str:
    """The key of an endpoint that rewrites prompts, itself. Raises InputError where its place holds none."""
    from jobs.dashboard_stores import referenced

    place = config.strategy.rewriter_key
    return referenced("strategy.rewriter_key", place) if place else ""


def _write(args: argparse.Namespace, config: GenerateConfig, names: tuple[str, ...], drawn: Drawn) -> None:
    """The video, its contact sheet, pictures drawn on the way and, last, the note."""
    import cv2

    from data_prep.video.encode import encode_mp4
    from pipeline.generate import contact_sheet

    video = encode_mp4(drawn.frames, config.fps)
    pictures = {".png": contact_sheet(drawn.frames)}
    pictures |= {f".{name}.png": picture for name, picture in drawn.pictures.items()}
    files = {".mp4": video}
    for suffix, picture in pictures.items():
        encoded, png = cv2.imencode(".png", picture[..., ::-1])
        assert encoded
        files[suffix] = png.tobytes()
    note = {**_note(args, config, names, video), "num_steps": drawn.num_steps, "drawn": drawn.notes}
    files[".json"] = json.dumps(note, indent=2, ensure_ascii=False).encode()
    for suffix, content in files.items():
        write_atomic(args.output.with_suffix(suffix), content)


def _note(
    args: argparse.Namespace, config: GenerateConfig, names: tuple[str, ...], video: bytes
) -> dict[str, Any]:
    """What repeats the video: the command, all values in force, and hashes of what went in and came out."""
    settings = dataclasses.asdict(config)
    command = ["castbank", "generate", str(args.run_folder)]
    command += [f"{key}={value}" for key, value in configs.flat(config).items() if value != ""]
    command += ["--prompt", args.prompt, "--output", str(args.output)]
    command += ["--cast", ",".join(names)] if names else []
    command += ["--layout", str(args.layout)] if args.layout else []
    command += ["--bank", str(args.bank)] if args.bank else []
    command += ["--anchor", str(args.anchor)] if args.anchor else []
    export = args.run_folder / "export" if (args.run_folder / "export").is_dir() else args.run_folder
    inputs = {str(p.relative_to(export)): _sha256(p) for p in sorted(export.rglob("*")) if p.is_file()}
    return {
        "command": shlex.join(command),
        "prompt": args.prompt,
        "cast": names,
        "layout_sha256": _sha256(args.layout) if args.layout else None,
        "anchor_sha256": _sha256(args.anchor) if args.anchor else None,
        "config": settings,
        "model_sha256": inputs,
        "versions": {name: version(name) for name in ("torch", "diffusers", "av")},
        "video_sha256": hashlib.sha256(video).hexdigest(),
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
