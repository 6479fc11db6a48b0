"""What squeue and sacct print, as states of jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cluster.job_folder import JobFolder
from cluster.slurm.states import from_sacct, from_squeue, status
from cluster.spec import JobSpec
from tests.cluster.slurm_lab.specs import MINIMAL


def test_states_are_those_of_the_rows(tmp_path: Path) -> None:
    spec = replace(MINIMAL, folder=tmp_path)
    whole = replace(spec, array=3)
    text = (
        "12|PENDING|0|Resources||\n13|RUNNING|0|None|n[1-2]|\n14|PENDING|0|PartitionTimeLimit||\n"
        "15|FAILED|19200|NonZeroExitCode|n1|\n16_1|COMPLETED|0|None|n1|\n16_2|RUNNING|0|None|n2|\n16_3|PENDING|0|Priority||\n"
        "17|NODE_FAIL|0|None|n1|\n18|TIMEOUT|0|TimeLimit|n1|\n19|CANCELLED|0|DependencyNeverSatisfied||\n20|NEW|0|||\n"
    )
    rows = list(from_squeue(text))

    def one(job_id: str, of: JobSpec = spec) -> tuple[str, str]:
        found = status([row for row in rows if row.job_id == job_id], of)
        return found.state, found.detail

    assert one("12") == ("queued", "PENDING (Resources)")
    assert one("13") == ("running", "RUNNING on n[1-2]")
    assert one("14")[1].startswith(
        "PENDING (PartitionTimeLimit): never starts so: lower resources.time_limit_min"
    )
    assert one("15")[0] == "preempted"
    assert one("16", whole) == ("running", "3 parts: 1 running, 1 queued, 1 succeeded; RUNNING on n2")
    assert one("17")[0] == "lost"
    assert (
        one("18")[1]
        == "TIMEOUT (TimeLimit): it did not end within its time limit: raise resources.time_limit_min"
    )
    assert one("19") == ("cancelled", "CANCELLED (DependencyNeverSatisfied): a job of after did not succeed")
    assert one("20")[0] == "unknown"
    assert one("21") == ("unknown", "Slurm does not know it (any more)")
    (tmp_path / "job").mkdir()
    JobFolder(tmp_path).cancelled.touch()
    assert one("15")[0] == "cancelled"


def test_accounting_says_the_same_of_jobs_that_are_long_gone() -> None:
    text = "12|NODE_FAIL|0:0\n12|COMPLETED|0:0\n13_1|CANCELLED by 1000|0:15\n13_2|FAILED|3:0\n"
    assert [(row.job_id, row.state, row.exit_code) for row in from_sacct(text)] == [
        ("12", "COMPLETED", 0),
        ("13", "CANCELLED", 0),
        ("13", "FAILED", 3),
    ]
