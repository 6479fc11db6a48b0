"""castbank storyboard: an episode of many shots with a recurring cast, planned for a run's bank, and drawn."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.atomic import write_atomic
from data_prep.records import InputError
from jobs import knobs
from jobs.drawing import Request
from jobs.generate import config_of
from jobs.generate_batch import draw_all
from jobs.outputs import check_file
from pipeline.config import GenerateConfig

if TYPE_CHECKING:
    from pipeline.storyboard.plan import Plan, PlannedShot

SUMMARY = """A story of many shots with a recurring cast: an episode's JSON as of EntityBench (arXiv 2605.15199).

plan says who of the run's bank plays whom, and each shot's prompt and cast; it loads no weights. draw makes the
videos, OUTPUT/EPISODE/SCENE_SHOT.mp4 as EntityBench's evaluator wants them, each with contact sheet and note. A
shot that is not cut begins with the last frame of the one before, where the model takes a first frame. Run
again, it goes on.

Without --cast-map somebody of the same name plays himself, and the others, those of more shots first, get the
characters of the bank that are left, in its order; whom nobody plays is drawn as the episode describes him.

examples:
  castbank storyboard plan runs/first episode.json
  castbank storyboard draw runs/first episode.json --cast-map Julian=anna,Marco=ben --shots 1:1-6,2"""

EXAMPLE = "castbank storyboard draw runs/first episode.json --shots 1 steps=20"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("what", choices=("plan", "draw"), help="say what would be drawn, or draw it")
    parser.add_argument(
        "run_folder", type=Path, metavar="RUN", help="folder of a finished run, or its export"
    )
    parser.add_argument("episode", type=Path, metavar="EPISODE.json")
    parser.add_argument("--bank", type=Path, help="another bank than the run's own")
    parser.add_argument(
        "--cast-map", default="", metavar="NAME=CHARACTER,...", help="who plays whom, and nobody else"
    )
    parser.add_argument(
        "--shots", default="", metavar="SHOTS", help="SCENE, SCENE:SHOT or SCENE:FROM-TO, commas between; all"
    )
    parser.add_argument(
        "--output", type=Path, help="of draw a folder (default storyboard); of plan a .json to write it to"
    )
    parser.add_argument(
        "--strategy", metavar="NAME", help="the same as strategy.name=NAME, see castbank generate"
    )
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes; 0 (the default): one per core"
    )
    knobs.add_arguments(parser, GenerateConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Plan, or draw; 0, or 1 where some shots could not be drawn."""
    from pipeline.storyboard.plan import chosen_shots

    config = config_of(args)
    planned = _plan(args)
    shots = chosen_shots(planned, args.shots)
    if args.what == "plan":
        _say(planned, shots)
        if args.output is not None:
            check_file("--output", args.output, ".json")
            rows = json.dumps(_as_json(planned, shots), indent=2, ensure_ascii=False)
            write_atomic(args.output, rows.encode())
        return 0
    folder = (args.output or Path("storyboard")).absolute() / planned.episode.id
    return draw_all(_requests(args, config, shots, folder), args.workers, folder)


def _plan(args: argparse.Namespace) -> Plan:
    from pipeline.generating.limits import outline_of
    from pipeline.identity.bank import IdentityBank, find_bank
    from pipeline.storyboard import plan as planning
    from pipeline.storyboard.episode import read_episode

    episode = read_episode(args.episode)
    outline, max_cast = outline_of(args.run_folder)
    known = list(IdentityBank.load(find_bank(args.bank or args.run_folder)).entries)
    goes_on = outline.anchors or outline.pictured
    return planning.plan(episode, known, _mapping(args.cast_map), max_cast, goes_on)


def _mapping(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, target = (piece.strip() for piece in part.partition("="))
        if not (name and equals and target) or name in found:
            raise InputError(f"--cast-map: came {part!r}; give NAME=CHARACTER once for each, commas between")
        found[name] = target
    return found


def _requests(
    args: argparse.Namespace, config: GenerateConfig, shots: tuple[PlannedShot, ...], folder: Path
) -> list[Request]:
    """Shots in their order; one that goes on does so only where the one before is drawn too."""
    requests: list[Request] = []
    bank = None if args.bank is None else args.bank.absolute()
    before: PlannedShot | None = None
    for one in shots:
        request = Request(args.run_folder.absolute(), one.prompt, one.cast, folder / one.file, config, bank)
        if one.continues and before is not None and _follows(before, one):
            requests[-1] = dataclasses.replace(requests[-1], keep_last=True)
            request = dataclasses.replace(request, anchor=requests[-1].last_frame)
        requests.append(request)
        before = one
    return requests


def _follows(before: PlannedShot, after: PlannedShot) -> bool:
    """Whether they are neighbours in one scene."""
    return before.shot.scene == after.shot.scene and before.shot.number + 1 == after.shot.number


def _say(planned: Plan, shots: tuple[PlannedShot, ...]) -> None:
    episode = planned.episode
    sys.stdout.write(f"{episode.id}: {len(shots)} of {len(episode.shots)} shots\n")
    for name in episode.characters:
        gaps = [one.shot.name for one in planned.shots if name in one.shot.characters]
        who = planned.mapping.get(name, "nobody of the bank: drawn as described")
        sys.stdout.write(f"  {name} is {who}; in {', '.join(gaps)}\n")
    for one in shots:
        how = "goes on from the shot before" if one.continues else "begins anew"
        cast = ", ".join(f"{slot} {name}" for slot, name in enumerate(one.cast, 1)) or "nobody known"
        sys.stdout.write(f"{one.shot.name} -> {one.file}, {how}; cast {cast}\n  {one.prompt}\n")


def _as_json(planned: Plan, shots: tuple[PlannedShot, ...]) -> dict[str, object]:
    rows = [
        {
            "shot": one.shot.name,
            "file": f"{planned.episode.id}/{one.file}",
            "prompt": one.prompt,
            "cast": list(one.cast),
            "plays": list(one.plays),
            "continues": one.continues,
        }
        for one in shots
    ]
    return {
        "episode": planned.episode.id,
        "cast_map": dict(planned.mapping),
        "unknown": list(planned.unknown),
        "shots": rows,
    }
