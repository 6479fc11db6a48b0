"""From a planned job to one that its scheduler has: snapshot of the code, resolved configuration, submission."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster import heartbeats
from cluster.job_folder import JobFolder
from cluster.launchers import launcher
from cluster.registry import Registry, home
from cluster.secret_values import SECRET_NAME, WITH_USERINFO, split
from cluster.spec import LIVE, JobError, JobSpec, Place
from data_prep.records import InputError
from jobs import config as configs
from jobs.commands import Command, resolve
from jobs.job_file import Planned
from jobs.overview import states_of

ROOMS = ("pipeline", "jobs", "data_prep", "cluster")
ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A job that could be submitted, and the command whose configuration goes with it."""

    spec: JobSpec
    command: Command


def registry() -> Registry:
    """Of this user on this machine."""
    return Registry(home() / "jobs")


def prepare(planned: Sequence[Planned], place: Place) -> list[Prepared]:
    """Every job of a file as a spec, all of it checked before the first is sent.

    Raises:
        InputError: a command or its configuration is wrong.
    """
    folders = {plan.label: plan.folder for plan in planned}
    made, known = [], registry()
    for plan in planned:
        step = plan.step
        here = plan.workdir if plan.workdir.is_dir() else Path.cwd()
        command = resolve(step.command, step.keys, plan.folder, here)
        _check_secrets(plan)
        _check_array(plan, command)
        config = (
            () if command.config is None else ("--config", str(JobFolder(plan.folder).job / configs.RESOLVED))
        )
        shared = {
            item.name: getattr(step, item.name)
            for item in dataclasses.fields(JobSpec)
            if hasattr(step, item.name) and item.name not in ("name", "folder", "workdir", "command")
        }
        if place != "kubernetes" and "CASTBANK_HOME" in os.environ:  # where this user's face packs are
            shared["environment"] = {"CASTBANK_HOME": os.environ["CASTBANK_HOME"], **step.environment}
        spec = JobSpec(
            id=known.new_id(plan.name),
            name=plan.name,
            place=place,
            command=(sys.executable, "-P", "-m", "jobs", *command.words, *config),
            folder=plan.folder,
            workdir=plan.workdir,
            code=JobFolder(plan.folder).code,
            ranks=command.ranked,
            after=tuple(folders[label] for label in plan.after),
            **shared,
        )
        made.append(Prepared(spec, command))
    return made


def _check_array(plan: Planned, command: Command) -> None:
    if command.ranked and plan.step.array:
        raise InputError(
            f"array={plan.step.array}: came for {command.words[0]}, whose processes are ranks of one training; "
            "leave array out, and say resources.nodes and resources.processes_per_node"
        )


def _check_secrets(plan: Planned) -> None:
    for variable, reference in plan.step.secrets.items():
        split(variable, reference)
    for variable, value in plan.step.environment.items():
        if WITH_USERINFO.search(value) or SECRET_NAME.search(variable):
            raise InputError(
                f"environment.{variable}: looks like a secret, which would be written into the job's files; give "
                f"it as secrets.{variable}=file:PATH"
            )


def submit(prepared: Sequence[Prepared]) -> list[tuple[JobSpec, str]]:
    """Submit jobs in order; returns each with its scheduler's id.

    Raises:
        JobError: a job of that name or folder is live, or the scheduler refuses; what was submitted before it in
            the same call is cancelled again.
    """
    _check_free([item.spec for item in prepared])
    done: list[tuple[JobSpec, str]] = []
    ids: dict[Path, str] = {}
    try:
        for item in prepared:
            ids[item.spec.folder] = hand_over(
                item.spec, [ids[folder] for folder in item.spec.after], item.command
            )
            done.append((item.spec, ids[item.spec.folder]))
    except BaseException:
        for spec, scheduler_id in reversed(done):
            with contextlib.suppress(JobError):  # the mark in its folder is there in any case
                cancel(spec, scheduler_id)
        raise
    return done


def hand_over(spec: JobSpec, after: Sequence[str], command: Command | None = None) -> str:
    """Lay the job's folder out, give the job to its scheduler, and remember it; returns the scheduler's id."""
    place = JobFolder(spec.folder)
    try:
        place.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JobError(
            f"folder {str(spec.folder)!r} cannot be made: {error.strerror}; give another"
        ) from error
    with kept_where_refused(place), code_kept_where_refused(place):
        place.renew()
        place.forgive()
        heartbeats.forget(place.heartbeats)
        if spec.code is not None:
            take_snapshot(place)
        if command is not None and command.config is not None:
            configs.save(command.config, place.job)
        place.write_spec(spec)
        registry().add(spec.id, spec.folder)  # before: what is interrupted after sbatch is to be found
        scheduler_id = launcher(spec.place).submit(spec, after)
    place.write_submitted(spec.place, scheduler_id)
    return scheduler_id


@contextlib.contextmanager
def kept_where_refused(place: JobFolder) -> Iterator[None]:
    """Put back what says how an earlier job of the folder ended, where the scheduler does not take the new one."""
    names = ("spec.json", "submitted.json", "outcome.json", "config.yaml", "forgiven", "code.json")
    before = {name: (place.job / name).read_bytes() for name in names if (place.job / name).is_file()}
    try:
        yield
    except BaseException:
        for name in names:
            (place.job / name).unlink(missing_ok=True)
        for name, data in before.items():
            (place.job / name).write_bytes(data)
        raise


@contextlib.contextmanager
def code_kept_where_refused(place: JobFolder) -> Iterator[None]:
    """Put the snapshot of an earlier job of the folder back likewise: a later requeue is of that job."""
    before = place.code.with_name(".code-before")
    shutil.rmtree(before, ignore_errors=True)
    if place.code.is_dir():
        place.code.rename(before)
    try:
        yield
    except BaseException:
        shutil.rmtree(place.code, ignore_errors=True)
        if before.is_dir():
            before.rename(place.code)
        raise
    shutil.rmtree(before, ignore_errors=True)


def cancel(spec: JobSpec, scheduler_id: str) -> None:
    """Mark a job as unwanted and tell its scheduler."""
    JobFolder(spec.folder).cancelled.touch()
    launcher(spec.place).cancel(spec, scheduler_id)


def take_snapshot(place: JobFolder) -> None:
    """Copy the code that submits, so that later edits change nothing for the job, and note what it was."""
    aside = place.code.with_name(".code")
    for old in (aside, place.code):
        shutil.rmtree(old, ignore_errors=True)
    digest = hashlib.sha256()
    for room in ROOMS:
        shutil.copytree(ROOT / room, aside / room, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        for path in sorted((aside / room).rglob("*")):
            if path.is_file():
                digest.update(f"{path.relative_to(aside)}\0".encode() + path.read_bytes())
    note = {"sha256": digest.hexdigest(), **_git()}
    (place.job / "code.json").write_text(json.dumps(note, indent=1), encoding="utf-8")
    aside.rename(place.code)


def _git() -> dict[str, str | bool]:
    """The commit that the code stands at, and whether it was changed since; nothing where it is no checkout."""

    def ask(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    if shutil.which("git") is None or not (commit := ask("rev-parse", "HEAD")):
        return {}
    return {"git_commit": commit, "dirty": bool(ask("status", "--porcelain", "--", *ROOMS))}


def _check_free(specs: Sequence[JobSpec]) -> None:
    """Raise JobError where a live job has the folder of one of these, or, in the same place, its name."""
    folders = {spec.folder for spec in specs}
    names = {(spec.name, spec.place) for spec in specs}
    found = {}
    for job_id, folder in registry().all().items():
        place = JobFolder(folder)
        with contextlib.suppress(JobError):  # gone, unreadable, or of another version: not ours to judge
            other = place.spec()
            if other.id == job_id and (folder in folders or (other.name, other.place) in names):
                found[job_id] = other
    for job_id, status in states_of(found, strict=True).items():
        if status.state in LIVE:
            same = "folder" if found[job_id].folder in folders else "name"
            raise JobError(
                f"{same}: {str(getattr(found[job_id], same))!r} is that of job {job_id}, which is {status.state}; "
                f"wait for it, end it with castbank cancel {job_id}, or give another {same}="
            )
