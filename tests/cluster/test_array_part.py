"""The parts of an array, and how the whole ends."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from cluster.array_part import note_whole, part_folder, part_spec, renew
from cluster.job_folder import JobFolder
from cluster.spec import JobSpec
from tests.cluster.slurm_lab.specs import ARRAY


def test_an_array_has_ended_when_its_parts_have(tmp_path: Path) -> None:
    spec, place = replace(ARRAY, folder=tmp_path, array=2), JobFolder(tmp_path)
    assert part_spec(spec, 2).command[-1] == "part=2/2"
    first, second = (JobFolder(part_folder(tmp_path, k)) for k in (1, 2))
    first.write_outcome("succeeded", 0, "")
    note_whole(tmp_path, 2)
    assert place.outcome() is None
    second.write_outcome("preempted", 75, "")
    note_whole(tmp_path, 2)
    assert place.outcome() is None
    second.write_outcome("failed", 3, "no input")
    note_whole(tmp_path, 2)
    outcome = place.outcome()
    assert outcome is not None
    assert (outcome.state, outcome.exit_code) == ("failed", 3)
    assert outcome.reason == "1 of 2 parts failed; part 2: no input"


def submit(spec: JobSpec, config: str) -> None:
    place = JobFolder(spec.folder)
    place.renew()
    place.write_spec(spec)
    (place.job / "config.yaml").write_text(config)
    renew(spec)


def run(spec: JobSpec) -> list[int]:
    """The exit codes of all parts."""
    words = [sys.executable, "-m", "cluster.array_part", str(spec.folder)]
    return [subprocess.run([*words, str(k)], check=False).returncode for k in range(1, spec.array + 1)]


def test_a_part_is_run_again_when_something_else_is_asked_of_it(tmp_path: Path) -> None:
    code = "import sys; k = sys.argv[1][0]; open(k, 'a').write('x'); sys.exit(2 if k in sys.argv[2] else 0)"
    spec = replace(ARRAY, place="local", folder=tmp_path, workdir=tmp_path, array=2, code=None)

    def asked(bad: str) -> JobSpec:
        return replace(spec, command=(sys.executable, "-c", code, "{part}", bad))

    def times() -> list[int]:
        return [len((tmp_path / k).read_text()) for k in "12"]

    submit(asked("2"), "seed: 1")
    assert (run(spec), times()) == ([0, 2], [1, 1])
    submit(asked("2"), "seed: 1")  # put back as it was: only what has not succeeded
    assert (run(spec), times()) == ([0, 2], [1, 2])
    submit(asked("2"), "seed: 2")
    assert (run(spec), times()) == ([0, 2], [2, 3])
    submit(asked("-"), "seed: 2")
    assert (
        JobFolder(part_folder(tmp_path, 1)).outcome() is None
    )  # else the whole would end with its first part
    assert (run(spec), times()) == ([0, 0], [3, 4])
    outcome = JobFolder(tmp_path).outcome()
    assert outcome is not None
    assert outcome.state == "succeeded"
