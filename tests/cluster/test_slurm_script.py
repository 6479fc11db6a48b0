"""The batch script: text that bash takes, that says what a job file says, and what is refused."""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.slurm.launcher import SlurmLauncher
from cluster.spec import JobError, JobSpec, Resources, SlurmOptions, Stopping
from tests.cluster.slurm_lab.specs import ARRAY, CONTAINER, MINIMAL, TRAINING, fuzzed

GOLDEN = Path(__file__).parent.parent / "golden" / "slurm"


@pytest.mark.parametrize("name", ["minimal", "training", "array", "container"])
def test_the_script_is_the_one_that_was_read_and_agreed(name: str) -> None:
    specs = {"minimal": MINIMAL, "training": TRAINING, "array": ARRAY, "container": CONTAINER}
    text = SlurmLauncher().render(specs[name])
    assert text == (GOLDEN / f"{name}.sh").read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_bash_starts_the_supervisor_with_every_value_as_it_was(tmp_path: Path) -> None:
    python = tmp_path / "a python"
    python.write_text('#!/bin/sh\nprintf \'%s\\0\' "$PWD" "$@"; echo ====; env -0\n')
    python.chmod(0o755)
    for seed in range(100):
        spec = fuzzed(random.Random(seed), tmp_path, str(python))
        spec.workdir.mkdir(exist_ok=True)
        text = SlurmLauncher().render(spec)
        assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0, seed
        head = text[: text.index("set -u")].splitlines()
        assert all(line.startswith("#") for line in head if line), seed
        given = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "7"}
        given |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"} if spec.array else {}
        done = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=False, env=given)
        assert done.returncode == 0, (seed, done.stderr)
        words, _, variables = done.stdout.partition("====\n")
        module = ["cluster.array_part"] if spec.array else ["cluster.supervisor"]
        expected = [str(spec.workdir), "-P", "-m", *module, str(spec.folder), *(["2"] if spec.array else [])]
        assert words.split("\0")[:-1] == expected, seed
        seen = dict(entry.split("=", 1) for entry in variables.split("\0") if entry)
        assert {name: seen[name] for name in spec.environment} == spec.environment, seed
        assert seen.get("PYTHONPATH") == (str(spec.code) if spec.code else None)


REFUSED: list[tuple[JobSpec, str]] = [
    (replace(MINIMAL, name="two\nlines"), r"name: 'two\\nlines' holds a control character; use printable"),
    (replace(MINIMAL, name="\x1b[31mred"), "name: .* control character"),
    (replace(MINIMAL, name="x" * 3000), "name: 3000 bytes; sbatch takes 2000"),
    (replace(MINIMAL, folder=Path("/a\\b")), "folder: .* backslash"),
    (replace(MINIMAL, folder=Path("/a\nb")), "folder: .* control character"),
    (replace(MINIMAL, environment={"A=B": "c"}), "environment: 'A=B' is no name of a variable"),
    (replace(MINIMAL, secrets={"A": "env:B,C=D"}), "'B,C=D' is no name of a variable"),
    (
        replace(MINIMAL, secrets={"A": "kubernetes:s/k"}),
        "secrets.A: kubernetes:… cannot be resolved on slurm",
    ),
    (replace(MINIMAL, slurm=SlurmOptions(partition="a\tb")), "slurm.partition: .* control character"),
    (replace(MINIMAL, slurm=SlurmOptions(extra=("--comment=x", "-x"))), "slurm.extra: '-x' is no option"),
    (
        replace(MINIMAL, slurm=SlurmOptions(extra=("--export=ALL",))),
        "--export is not free.*environment and secrets",
    ),
    (replace(MINIMAL, slurm=SlurmOptions(container="pyxis")), "slurm.container: pyxis needs an image"),
    (replace(CONTAINER, mounts=("data:/data",)), "mounts: 'data:/data' is no HOST:CONTAINER"),
    (
        replace(MINIMAL, resources=Resources(time_limit_min=2), stopping=Stopping(grace_s=120)),
        "resources.time_limit_min: 2 min are used up by the 120 s of stopping.grace_s",
    ),
]


@pytest.mark.parametrize(("spec", "words"), REFUSED)
def test_what_slurm_would_misread_is_refused(spec: JobSpec, words: str) -> None:
    with pytest.raises(JobError, match=words):
        SlurmLauncher().render(spec)
