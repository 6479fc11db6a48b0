"""``castbank prepare``: clips to shards, and in the end what came of every clip in a few lines."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.job_folder import ENV_TOKEN
from data_prep.config import CaptionConfig, PrepareConfig
from data_prep.records import InputError, Json
from jobs.knobs import add_arguments

if TYPE_CHECKING:
    from data_prep.captioning.questions import Captioner
    from data_prep.flow import Prepared
    from data_prep.running.parts import Part, PartDone
    from data_prep.running.stages import Stage

SUMMARY = """Clips to shards: find people, link their identities, draw masks, choose references, pack.

The manifest is a table with UltraVideo's columns (.csv, .jsonl, .parquet), whose clips lie beside it or in the
folder given as clips=FOLDER, as files or in zips; or a folder of videos with .txt and .json beside them; or a
folder of WebDataset tars. Each may be a path or a URL: s3://, gs://, hf://, and what else fsspec reads.
Run again after an interruption and it goes on; run again with nothing changed and it does nothing.

A clip that crashes, hangs or raises is tried run.max_attempts times, then quarantined; the others go on. When it is
plain that more than run.max_quarantined of them will fail, the run stops with exit code 2 and says what fails most.
ledger.parquet and ledger.html have the fate of every item, and for what is quarantined the command that tries it
again: --replay clip-7, --replay TimeoutError decode.timeout_s=3600, --replay all.

On several machines that share a file system: --part 1/4 to --part 4/4, at the same time or not, only analyse their
share of the clips; the same command without --part then finds all of it, links, selects and packs."""

EXAMPLE = (
    "castbank prepare short.csv --output shards clips=/data/clips windows.num_frames=49 run.num_workers=8"
)

EXIT_EMPTY = 3
JOB_LOCK_WAIT_S = 60.0
MAX_RULES = 8
MAX_FAILED = 5  # clips of a part that are named
MOST_FALSE_ACCEPTS = 0.01  # share of co-visible pairs above the threshold from which a person should look


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("manifest", metavar="MANIFEST", help="one row per clip, or a folder of clips")
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of the shards")
    parser.add_argument(
        "--replay",
        metavar="QUARANTINED",
        default="",
        help="try clips again that failed: 'all', clip ids or error classes with commas between, or a "
        "ledger.parquet; without it what failed is not tried again",
    )
    parser.add_argument(
        "--repack",
        action="store_true",
        help="choose references and write shards anew; without it, shards that nothing changed in stay as they are",
    )
    parser.add_argument(
        "--part", metavar="K/N", help="only analyse the K-th of N shares of the clips, beside other parts"
    )
    add_arguments(parser, PrepareConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Prepare; 0 when there are samples or a part is done, 3 when everything was dropped."""
    from data_prep.flow import Again, prepare
    from data_prep.running.commit import STOPPED
    from data_prep.running.parts import Part
    from data_prep.running.work import TooManyFailedError
    from jobs.config import load, save
    from jobs.prepare_tracking import track
    from jobs.progress import ProgressBar

    part = None if args.part is None else Part.parse(args.part)
    places = [f"manifest={_quoted(args.manifest)}", f"output={_quoted(args.output)}"]
    config = load(PrepareConfig, args.config, [*places, *args.overrides])
    if part is not None and args.replay:
        raise InputError("--replay belongs to the run without --part; a part always tries again what failed")
    if part is not None:
        return _run_part(args, part, config)
    began_ms = int(time.time() * 1000)
    try:
        with ProgressBar() as progress:
            prepared = prepare(
                _patient(config),
                progress,
                again=Again(args.replay, args.repack),
                on_busy=progress.busy,
                captioner=_captioner(config.captions),
            )
    except TooManyFailedError as error:
        save(config, args.output / STOPPED)
        raise InputError(f"{error}\n{_after_stop(args)}") from error
    save(config, prepared.folder)
    sys.stdout.write(_summary(args.output, prepared))
    told = track(config, began_ms, prepared.stages)
    if told:
        sys.stdout.write(told + "\n")
    return 0 if prepared.facts["num_samples"] else EXIT_EMPTY


def _captioner(config: CaptionConfig) -> Captioner | None:
    """Who is asked for captions, if anybody."""
    if not config.url:
        return None
    from data_prep.captioning.endpoint import Endpoint
    from jobs.dashboard_stores import referenced

    return Endpoint(config, referenced("captions.key", config.key) if config.key else "")


def _patient(config: PrepareConfig) -> PrepareConfig:
    """In a job, wait for an old self that is still ending."""
    if ENV_TOKEN not in os.environ:
        return config
    wait_s = max(config.run.lock_wait_s, JOB_LOCK_WAIT_S)
    return replace(config, run=replace(config.run, lock_wait_s=wait_s))


def _run_part(args: argparse.Namespace, part: Part, config: PrepareConfig) -> int:
    from data_prep.running.parts import prepare_part
    from jobs.progress import ProgressBar

    with ProgressBar() as progress:
        done = prepare_part(_patient(config), part, progress)
    sys.stdout.write(_part_summary(args, part, done))
    return 0


def _quoted(path: Path | str) -> str:
    """A path as a YAML string; OmegaConf would read ``1e3`` as a number and ``a: b`` as a mapping."""
    text = str(path)
    if "${" in text:
        raise InputError(f"path {text!r}: '${{' is how a configuration refers to its keys; rename the file")
    return "'" + text.replace("'", "''") + "'"


def _after_stop(args: argparse.Namespace) -> str:
    where = shlex.quote(str(args.output))
    again = _command(args, "--replay", "all")
    return (
        f"{where}/stopped/ledger.html has what each wrote and the command that tries it again. What was analysed "
        f"stays. When the cause is mended: {again}"
    )


def _summary(output: Path, prepared: Prepared) -> str:
    facts = prepared.facts
    nothing = "Nothing to do: these clips are prepared with this configuration."
    lines = [_times(prepared.stages)] if prepared.worked else [nothing]
    lines.append(
        f"{facts['num_clips_kept']} of {facts['num_clips']} clips, {facts['num_tracks']} face tracks, "
        f"{facts['num_characters']} characters -> {facts['num_samples']} samples with "
        f"{facts['num_characters_in_samples']} characters"
    )
    if prepared.num_kept:
        lines.append(f"{prepared.num_written} shards written, {prepared.num_kept} stay as they were")
    if facts["num_samples_validation"]:
        lines.append(
            f"{facts['num_samples_validation']} of them are for validation; no person or source is on both sides"
        )
    lost = sorted(facts["lost_by_rule"].items(), key=lambda item: -item[1])
    if lost:
        lines.append("left out: " + ", ".join(f"{count} {rule}" for rule, count in lost[:MAX_RULES]))
    if facts["num_quarantined"]:
        lines.append(
            f"{facts['num_quarantined']} clips quarantined: {output / 'ledger.html'} says why and how to try again"
        )
    lines += _people(facts)
    where = shlex.quote(str(output))
    if facts["num_samples"]:
        lines.append(
            f"in {where}: shard-*.tar, index.jsonl, manifest.json, ledger.parquet (.html), characters.json, "
            "calibration.json, faces/"
        )
        lines.append(f"next: castbank report {where} (it lists what was left out and why)")
    else:
        lines.append(f"no sample is left; {where}/ledger.parquet names the rule for every clip and window")
    return "\n".join(lines) + "\n"


def _times(stages: Sequence[Stage]) -> str:
    """``analyse 41.2 s (2.1/s, workers 97 % busy), link 0.3 s``: where the time went."""
    said = []
    for stage in stages:
        notes = []
        if stage.occupancy is not None:
            notes = [f"{stage.num_items / stage.seconds:.3g}/s", f"workers {stage.occupancy:.0%} busy"]
        said.append(f"{stage.name} {stage.seconds:.1f} s" + f" ({', '.join(notes)})" * bool(notes))
    return ", ".join(said)


def _people(facts: Json) -> list[str]:
    """What a person should know, or look at, of who was taken for whom."""
    lines = []
    seen = facts["calibration"]
    if seen["threshold"] > seen["base_threshold"]:
        lines.append(
            f"one person from cosine {seen['threshold']:g} instead of {seen['base_threshold']:g}: faces seen "
            "together are this alike (calibration.json)"
        )
    if seen["false_accept"] is not None and seen["false_accept"] > MOST_FALSE_ACCEPTS:
        lines.append(
            f"warning: {seen['false_accept']:.1%} of faces seen together pass as one person at cosine "
            f"{seen['threshold']:g}: people who look alike, mirrors, or pictures of who is there; raise "
            "link.threshold, or say in link.overrides who is whom"
        )
    if facts["num_alike"]:
        pairs = "pair" if facts["num_alike"] == 1 else "pairs"
        lines.append(
            f"{facts['num_alike']} {pairs} of characters look alike and stay apart: see 'alike' in "
            "characters.json; link.overrides merges and splits"
        )
    if facts["num_excluded"]:
        lines.append(f"{facts['num_excluded']} characters left out, whole or in part, by link.overrides")
    return lines


def _part_summary(args: argparse.Namespace, part: Part, done: PartDone) -> str:
    num_now = done.num_own - done.num_before - len(done.failed)
    lines = [
        f"part {part}: {done.num_own} of {done.num_clips} clips; {done.num_before} were analysed before, {num_now} "
        f"now, {len(done.failed)} failed"
    ]
    for fate in done.failed[:MAX_FAILED]:
        last = fate.detail.rstrip().rpartition("\n")[2]
        lines.append(f"  {fate.item}: {fate.error_class} after {fate.attempts} attempts: {last}")
    if len(done.failed) > MAX_FAILED:
        lines.append(f"  and {len(done.failed) - MAX_FAILED} more")
    if done.failed:
        lines.append(
            "what failed is tried again by the run without --part, which says in the ledger what came of it"
        )
    lines.append(f"next, when all {part.count} parts are done: {_command(args)}")
    return "\n".join(lines) + "\n"


def _command(args: argparse.Namespace, *options: str) -> str:
    """This preparation as a whole, with further options."""
    config = [] if args.config is None else ["--config", str(args.config)]
    places = [str(args.manifest), "--output", str(args.output)]
    return shlex.join(["castbank", "prepare", *places, *config, *options, *args.overrides])
