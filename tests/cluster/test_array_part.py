"""The parts of an array, and how the whole ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cluster.array_part import note_whole, part_folder, part_spec
from cluster.job_folder import JobFolder
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
