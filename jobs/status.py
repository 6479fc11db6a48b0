"""``castbank status``: how one job stands, where each rank is, what failed, and what it needs to go on."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster import heartbeats
from cluster.cost import of_job
from cluster.job_folder import Attempt, JobFolder
from cluster.logs import tail
from cluster.policy import suspect_host
from cluster.spec import EXIT_EMPTY, EXIT_INPUT, LIVE, JobSpec, Status
from jobs.jobs import span
from jobs.overview import states_of
from jobs.submission import registry

SUMMARY = """Say how a job stands: attempts, ranks with their steps, progress, and, where it is not going on by
itself, why and what it needs.

examples:
  castbank status first-3f2a
  castbank status first-3f2a --stacks   # where in the code each rank is now"""
QUIET_S = 60.0  # a rank silent for longer is pointed out
TAIL_LINES = 12
STACKS_WAIT_S = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("job", metavar="JOB", help="id, its beginning, or the job's folder")
    parser.add_argument("--stacks", action="store_true", help="ask every rank where in the code it is")


def run(args: argparse.Namespace) -> int:
    """Print the status; 0 whatever it is."""
    place = JobFolder(registry().find(args.job))
    spec = place.spec()
    status = states_of({spec.id: spec})[spec.id]
    for head, lines in sections(place, spec, status):
        for number, line in enumerate(lines):
            sys.stdout.write(f"{head if number == 0 else '':<10} {line}\n")
    if args.stacks:
        from cluster.stacks import ask_for_stacks

        for rank, text in sorted(ask_for_stacks(spec.folder, STACKS_WAIT_S).items()):
            sys.stdout.write(f"\nrank {rank}\n{text.rstrip()}\n")
    return 0


def sections(place: JobFolder, spec: JobSpec, status: Status) -> Iterator[tuple[str, list[str]]]:
    """The parts of the page: a heading and its lines."""
    submitted, attempts = place.submitted(), place.attempts()
    known = f" {submitted.scheduler_id}" if submitted and submitted.scheduler_id != spec.id else ""
    detail = f": {status.detail}" if status.detail else ""
    yield "job", [f"{spec.id} on {spec.place}{known}"]
    yield "state", [f"{status.state}{detail}"]
    yield "folder", [str(spec.folder)]
    yield "command", [shlex.join(("castbank", *spec.command[4:])) if spec.code else shlex.join(spec.command)]
    yield "code", [_code(place)]
    if progress := _progress(place):
        yield "progress", [progress]
    if beats := [_rank(beat) for beat in heartbeats.read(place.heartbeats)]:
        yield "ranks", beats
    if attempts:
        yield "attempts", [_attempt(attempt) for attempt in attempts]
        used = of_job(spec.folder)
        yield "cost", [f"{used.process_hours:.2f} process-hours, {used.gpu_hours:.2f} GPU-hours"]
    if host := suspect_host(attempts):
        yield "hint", [f"every failure was on {host}; keep away from it (slurm.exclude={host} on Slurm)"]
    if status.state not in LIVE and status.state != "succeeded":
        yield "last words", _last_words(place, attempts)
        yield "to go on", list(needs(place, spec, status))


def needs(place: JobFolder, spec: JobSpec, status: Status) -> Iterator[str]:
    """What an ended job needs to go on, one line each, the command last."""
    from pipeline.training.checkpoints import committed

    config = _config(place)
    if "num_steps" in config and "run" in config:
        run = _below(spec, str(config["run"]))
        found = committed(run / "checkpoints")
        yield f"from checkpoint {found[0]}" if found else "from the beginning: there is no checkpoint yet"
        shards = _below(spec, str(config["data"]["shards"]))
        there = (shards / "manifest.json").is_file()
        yield f"shards {shards}{'' if there else ': NOT THERE; bring them back'}"
        yield f"tracking {config['tracking']['uri'] or 'in mlflow.db beside the run'}"
    free_gib = shutil.disk_usage(place.job).free / 2**30
    yield f"{free_gib:.0f} GiB are free for it"
    wanted = spec.resources
    yield (
        f"{wanted.nodes} nodes with {wanted.processes_per_node} processes each, {wanted.gpus_per_process} GPUs and "
        f"{wanted.cpus_per_process} CPUs a process"
    )
    for folder in spec.after:
        before = JobFolder(folder).outcome()
        if before is None or before.state != "succeeded":
            yield f"first the job of {folder} ({before.state if before else 'not ended'})"
    outcome = place.outcome()
    if outcome is not None and outcome.exit_code in (EXIT_INPUT, EXIT_EMPTY):
        yield "its input corrected; a requeue keeps the configuration, submitting the file anew takes a new one"
    yield f"castbank requeue {spec.id}"


def _below(spec: JobSpec, path: str) -> Path:
    return spec.workdir / path


def _config(place: JobFolder) -> dict[str, Any]:
    """The resolved configuration of the job's verb; empty where it has none."""
    path = place.job / "config.yaml"
    if not path.is_file():
        return {}
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(OmegaConf.load(path))
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _code(place: JobFolder) -> str:
    path = place.job / "code.json"
    if not path.is_file():
        return "the submitter's own, no snapshot"
    note = json.loads(path.read_text(encoding="utf-8"))
    commit = note.get("git_commit", "")
    git = f", git {commit[:10]}{' and uncommitted changes' if note.get('dirty') else ''}" if commit else ""
    return f"snapshot {note['sha256'][:12]}{git}"


def _progress(place: JobFolder) -> str:
    """Of a training: the step, of how many, and its losses."""
    from pipeline.training.run_folder import read_metrics

    config = _config(place)
    if "num_steps" not in config or "run" not in config:
        return ""
    lines = read_metrics(place.spec().workdir / str(config["run"]) / "metrics.jsonl")
    if not lines:
        return f"step 0 of {config['num_steps']}"
    last = lines[-1]
    return (
        f"step {int(last['step'])} of {config['num_steps']}, loss {last['loss']:.4f}, "
        f"{last['step_time_s']:.2f} s a step"
    )


def _rank(beat: heartbeats.Heartbeat) -> str:
    now_s = time.time()
    line = f"{beat.rank} on {beat.host} (pid {beat.pid}): {beat.phase}, step {beat.step}"
    if beat.phase == heartbeats.DONE:
        return line
    if now_s - beat.alive_at_s > QUIET_S:
        return f"{line}, NOT SEEN for {span(now_s - beat.alive_at_s)}"
    stuck_s = now_s - beat.step_at_s
    return f"{line}, {'STUCK' if stuck_s > QUIET_S else 'there'} for {span(stuck_s)}"


def _attempt(attempt: Attempt) -> str:
    end_s = attempt.end_s if attempt.end_s is not None else time.time()
    line = f"{attempt.number} on {attempt.host}, {span(end_s - attempt.start_s)}: {attempt.kind or 'runs'}"
    line += f" at step {attempt.step}" if attempt.step else ""
    if attempt.stopped_s is not None:
        line += f", {attempt.stopped_s:.1f} s after it was asked to stop"
    return f"{line} ({attempt.reason})" if attempt.reason else line


def _last_words(place: JobFolder, attempts: list[Attempt]) -> list[str]:
    """The end of the log of the process that failed."""
    failed = [attempt for attempt in attempts if attempt.kind in ("failed", "hung")]
    rank = (failed[-1].failed_rank or 0) if failed else 0
    return tail(place.rank_log(rank), TAIL_LINES) or tail(place.log, TAIL_LINES) or ["nothing was written"]
