"""Jobs on a real Slurm: one controller and two nodes on this machine, and ranks that count (slurm_lab/counting.py).

A requeued job waits 6 s and more before it starts again, so what can run at once does.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.slurm.launcher import SlurmLauncher
from cluster.spec import LIVE, JobError, JobSpec, Resources, Retry, SlurmOptions, State, Status, Stopping
from tests.cluster.slurm_lab.lab import Lab
from tests.cluster.slurm_lab.specs import fuzzed
from tests.waiting import until

ROOT = Path(__file__).parent.parent.parent
COUNTING = ROOT / "tests" / "cluster" / "slurm_lab" / "counting.py"
LAUNCHER = SlurmLauncher()


@dataclass(frozen=True)
class Job:
    """A job that Slurm has."""

    id: str
    spec: JobSpec

    @property
    def place(self) -> JobFolder:
        return JobFolder(self.spec.folder)

    def status(self) -> Status:
        return LAUNCHER.states({self.id: self.spec})[self.id]

    def end(self, timeout_s: float = 60.0) -> State:
        until(lambda: self.status().state not in LIVE, timeout_s)
        return self.status().state

    def steps(self, rank: int) -> list[int]:
        """The steps that a counting rank has committed, in the order in which it did."""
        path = self.spec.folder / f"rank-{rank}.txt"
        return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []

    def kinds(self) -> list[str]:
        return [attempt.kind for attempt in self.place.attempts()]


def job(folder: Path, code: str, **changes: object) -> JobSpec:
    """A job of one process that runs a line of Python."""
    folder.mkdir(parents=True)
    command = (sys.executable, "-u", "-c", code, "{part}")
    spec = JobSpec(
        "test-0001", folder.name, "slurm", command, folder, folder, ROOT, retry=Retry(backoff_s=0.1)
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def counting(folder: Path, steps: int, *trouble: str, **changes: object) -> JobSpec:
    """A training of two ranks on two nodes that counts, ten steps a second."""
    spec = job(folder, "", ranks=True, resources=Resources(nodes=2), stopping=Stopping(grace_s=20))
    command = (sys.executable, "-P", str(COUNTING), str(folder), str(steps), "0.1", *trouble)
    return replace(spec, command=command, **changes)  # type: ignore[arg-type]


def submit(spec: JobSpec, after: Sequence[Job] = ()) -> Job:
    spec = replace(spec, after=tuple(other.spec.folder for other in after))
    JobFolder(spec.folder).write_spec(spec)
    return Job(LAUNCHER.submit(spec, [other.id for other in after]), spec)


def cancel(job: Job) -> None:
    job.place.cancelled.touch()
    LAUNCHER.cancel(job.spec, job.id)


def whole(job: Job, steps: int) -> bool:
    """Whether both ranks have done every step exactly once and in order."""
    return all(job.steps(rank) == list(range(1, steps + 1)) for rank in (0, 1))


def test_a_job_has_its_name_its_log_its_variables_and_no_secret_of_its_submitter(
    slurm: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "named")
    monkeypatch.setenv("OTHER_TOKEN", "not named")
    monkeypatch.setenv("SBATCH_EXPORT", "ALL")
    code = "import json, os, sys; print(json.dumps(dict(os.environ))); print('bad', file=sys.stderr)"
    name = "; rm -rf $HOME 'x' \"q\" \\ # % é"
    spec = job(
        tmp_path / "a %j b", code, name=name, environment={"A": "b 'c'\nd"}, secrets={"TOKEN": "env:MY_TOKEN"}
    )
    done = submit(spec)
    assert done.end() == "succeeded"
    assert slurm.ask("squeue", "-h", "-t", "all", "-j", done.id, "-o", "%j") == name
    said, bad = done.place.rank_log(0).read_text().splitlines()
    seen = json.loads(said)
    assert (seen["A"], seen["TOKEN"], bad) == ("b 'c'\nd", "named", "bad")
    assert "OTHER_TOKEN" not in seen
    assert "named" not in done.place.script.read_text()
    assert "succeeded" in done.place.log.read_text()
    assert done.status() == Status("succeeded", "COMPLETED")


def test_whoever_stops_a_training_it_goes_on_exactly_where_it_was(slurm: Lab, tmp_path: Path) -> None:
    words = {
        "batch": ("scancel", "--batch", "--signal=USR1"),  # as before a time limit
        "steps": ("scancel", "--signal=USR1"),
        "requeue": ("scontrol", "requeue"),
    }
    jobs = {name: submit(counting(tmp_path / name, 40)) for name in words}
    for name, one in jobs.items():
        until(lambda one=one: len(one.steps(0)) > 3 and len(one.steps(1)) > 3)  # type: ignore[misc]
        assert one.status().state == "running"
        subprocess.run([*words[name], one.id], check=True)
    for name, one in jobs.items():
        assert one.end() == "succeeded", name
        assert whole(one, 40), name
        first_kind, *others = one.kinds()  # a requeue may kill the supervisor before it has noted the end
        assert (first_kind in ("preempted", "lost"), others) == (True, ["ok"]), name
        first, last = one.place.attempts()
        assert first.token != last.token
        assert one.place.failed_rank(first.token) is None


def test_a_job_that_may_not_be_requeued_ends_and_can_go_on(slurm: Lab, tmp_path: Path) -> None:
    one = submit(counting(tmp_path / "one", 30, preemptible=False))
    until(lambda: len(one.steps(1)) > 3)
    subprocess.run(["scancel", "--batch", "--signal=USR1", one.id], check=True)
    assert one.end() == "preempted"
    one.place.renew()
    again = submit(one.spec)
    assert again.end() == "succeeded"
    assert whole(again, 30)


def test_a_failed_rank_is_named_and_its_job_tried_again_at_once(slurm: Lab, tmp_path: Path) -> None:
    failing = submit(counting(tmp_path / "failing", 30, "fail-at=1:5:1"))
    bad_input = submit(counting(tmp_path / "bad", 500, "fail-at=1:5:2"))
    killed = submit(
        job(tmp_path / "killed", "import os; os.kill(os.getpid(), 9)", retry=Retry(max_failures=1))
    )
    short = Stopping(grace_s=2, hang_s=8)  # an srun begins only when the one before has been cleared away
    hanging = submit(counting(tmp_path / "hanging", 60, "hang-at=1:5", stopping=short))
    assert failing.end() == "succeeded"
    assert whole(failing, 30)
    assert failing.kinds() == ["failed", "ok"]
    first = failing.place.attempts()[0]
    assert (first.failed_rank, first.failed_host) == (1, "n2")
    assert bad_input.end() == "failed"
    outcome = bad_input.place.outcome()
    assert outcome is not None
    assert outcome.exit_code == 2
    assert bad_input.kinds() == ["failed"]
    assert killed.end() == "failed"
    assert killed.place.attempts()[0].exit_code == 137
    assert hanging.end() == "succeeded"  # what hung was cleared away, else its step would hold the nodes
    assert whole(hanging, 60)
    assert hanging.kinds() == ["hung", "ok"]


def test_a_task_that_cannot_start_is_no_success(slurm: Lab, tmp_path: Path) -> None:
    spec = job(tmp_path / "one", "pass", retry=Retry(max_failures=1))
    JobFolder(spec.folder).rank_log(0).mkdir(parents=True)  # so its output cannot be opened
    one = submit(spec)
    assert one.end() == "failed"
    assert "launch failed" in one.place.log.read_text()


def test_cancel_waits_for_the_checkpoint_and_may_be_said_twice(slurm: Lab, tmp_path: Path) -> None:
    running = submit(counting(tmp_path / "running", 500))
    waiting = submit(counting(tmp_path / "waiting", 5), after=[running])
    deaf = job(
        tmp_path / "deaf",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); signal.pause()",
        stopping=Stopping(grace_s=2),
    )
    unmoved = submit(deaf)
    until(lambda: len(running.steps(1)) > 3 and unmoved.place.rank_log(0).exists())
    until(lambda: "up" in unmoved.place.rank_log(0).read_text())
    assert waiting.status() == Status("queued", "PENDING (Dependency)")
    for one in (waiting, running, running, unmoved):
        cancel(one)
    for one in (waiting, running, unmoved):
        assert one.end() == "cancelled"
        outcome = one.place.outcome()
        assert outcome is not None
        assert outcome.state == "cancelled"
    assert "stopped after step" in running.place.rank_log(0).read_text()
    assert running.kinds() == ["preempted"]
    assert waiting.kinds() == []
    assert "killed: no end within 2 s" in unmoved.place.attempts()[0].reason
    before = running.place.outcome()
    cancel(running)
    assert running.place.outcome() == before


def test_jobs_run_after_those_that_succeeded_and_never_after_one_that_did_not(
    slurm: Lab, tmp_path: Path
) -> None:
    first = submit(job(tmp_path / "first", "open('made', 'w')"))
    second = submit(job(tmp_path / "second", f"open({str(tmp_path / 'first' / 'made')!r})"), after=[first])
    failed = submit(job(tmp_path / "failed", "raise SystemExit(3)"))
    never = submit(job(tmp_path / "never", "pass"), after=[second, failed])
    assert second.end() == "succeeded"
    assert never.end() == "cancelled"
    assert "DependencyNeverSatisfied" in never.status().detail
    assert never.kinds() == []
    third = submit(job(tmp_path / "third", "pass"), after=[second])
    assert "Dependency" not in slurm.ask("scontrol", "show", "job", third.id).split("Dependency=")[1][:10]
    assert third.end() == "succeeded"


def test_an_array_s_parts_fail_stop_and_go_on_each_by_itself(slurm: Lab, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time; k = sys.argv[1]; print(k)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "if k == '3/4' and not os.path.exists('go'): signal.pause()\n"
        "sys.exit(1 if k == '2/4' and not os.path.exists('go') else 0)"
    )
    one = submit(job(tmp_path / "one", code, array=4, retry=Retry(max_failures=1), preemptible=False))
    until(lambda: one.place.rank_log(2).exists() and "3/4" in one.place.rank_log(2).read_text())
    until(lambda: "2 succeeded" in one.status().detail and "1 failed" in one.status().detail)
    assert one.status().detail == "4 parts: 1 running, 1 failed, 2 succeeded; RUNNING on n1"
    cancel(one)
    assert one.end() in ("cancelled", "failed")
    outcome = one.place.outcome()
    assert outcome is not None
    assert outcome.state == "failed"
    assert outcome.reason.startswith("1 of 4 parts failed; part 2: ")
    (tmp_path / "one" / "go").touch()
    one.place.renew()
    again = submit(one.spec)
    assert again.end() == "succeeded"
    outcome = again.place.outcome()
    assert outcome is not None
    assert outcome.state == "succeeded"
    said = [again.place.rank_log(k).read_text().split() for k in range(4)]
    assert [words.count(f"{k}/4") for k, words in enumerate(said, 1)] == [1, 2, 2, 1]


def test_a_part_of_an_array_that_is_stopped_is_requeued_alone(slurm: Lab, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; k = sys.argv[1]; print(k)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "if not os.path.exists(f'go-{k[0]}'): signal.pause()"
    )
    one = submit(job(tmp_path / "one", code, array=2))
    until(lambda: all(one.place.rank_log(k).exists() and one.place.rank_log(k).read_text() for k in (0, 1)))
    (tmp_path / "one" / "go-1").touch()
    subprocess.run(["scancel", "--batch", "--signal=USR1", f"{one.id}_1"], check=True)
    until(lambda: "1 queued" in one.status().detail)
    assert "1 running" in one.status().detail
    until(lambda: "1 succeeded" in one.status().detail)
    cancel(one)
    assert one.end() == "cancelled"
    assert [one.place.rank_log(k).read_text().split().count(f"{k + 1}/2") for k in (0, 1)] == [2, 1]


REFUSED: list[tuple[SlurmOptions, Resources, str]] = [
    (SlurmOptions(partition="nix"), Resources(), "partition: 'nix' does not exist; there are: debug, other"),
    (SlurmOptions(), Resources(nodes=5), "resources: the default partition can never give 5 x 1"),
    (SlurmOptions(), Resources(cpus_per_process=99), "99 CPUs"),
    (SlurmOptions(partition="other"), Resources(nodes=2), "partition 'other' can never give 2 x 1"),
    (SlurmOptions(), Resources(memory_gib=9999), "9999 GiB per node"),
    (SlurmOptions(), Resources(gpus_per_process=1), "gres: the default partition has no gpu"),
    (SlurmOptions(constraint="a100"), Resources(), "constraint: no node has the feature 'a100'"),
    (SlurmOptions(reservation="r"), Resources(), "reservation: 'r' is not there"),
    (SlurmOptions(exclude="n9"), Resources(), "exclude: 'n9' names an unknown node"),
    (SlurmOptions(extra=("--nonsense=1",)), Resources(), "extra: --nonsense=1 is not understood"),
]


def test_what_the_cluster_has_not_is_refused_with_the_line_to_change(slurm: Lab, tmp_path: Path) -> None:
    for number, (options, resources, words) in enumerate(REFUSED):
        spec = job(tmp_path / str(number), "pass", slurm=options, resources=resources, ranks=True)
        with pytest.raises(JobError, match=words):
            submit(spec)
    with pytest.raises(JobError, match="array: 5000 parts are more than this cluster takes"):
        submit(job(tmp_path / "array", "pass", array=5000))


def test_slurm_takes_every_script_and_sees_its_name(slurm: Lab, tmp_path: Path) -> None:
    names = {}
    for seed in range(100):
        spec = fuzzed(random.Random(seed), tmp_path, sys.executable)
        held = replace(spec, slurm=replace(spec.slurm, extra=(*spec.slurm.extra, "--hold")))
        text = LAUNCHER.render(held)
        script = tmp_path / f"{seed}.sh"
        script.write_text(text, encoding="utf-8")
        tried = subprocess.run(["sbatch", "--test-only", script], capture_output=True, text=True, check=False)
        assert tried.returncode == 0, (seed, tried.stderr, text)
        names[slurm.ask("sbatch", "--parsable", str(script))] = spec.name
    listed = subprocess.run(
        ["squeue", "-h", "-o", "%F %j"], capture_output=True, text=True, check=True
    ).stdout
    subprocess.run(["scancel", *names], check=True)
    seen = dict(line.split(" ", 1) for line in listed.splitlines())
    assert {job_id: seen[job_id] for job_id in names} == names


def test_a_thousand_jobs_and_one_that_never_was_are_asked_about_at_once(slurm: Lab, tmp_path: Path) -> None:
    one = submit(job(tmp_path / "one", "pass"))
    spec = one.spec
    asked = {one.id: spec} | {str(900_000 + k): spec for k in range(1000)}
    states = LAUNCHER.states(asked)
    assert states.keys() == asked.keys()
    assert states["900000"] == Status("unknown", "Slurm does not know it (any more)")
    assert LAUNCHER.states({"900000": spec})["900000"].state == "unknown"
    LAUNCHER.cancel(replace(spec, folder=tmp_path / "gone"), "900000")
    assert LAUNCHER.states({}) == {}
    assert one.end() == "succeeded"


@pytest.mark.slow
def test_a_time_limit_is_a_pause(slurm: Lab, tmp_path: Path) -> None:
    limit = Resources(nodes=2, time_limit_min=1)
    one = submit(counting(tmp_path / "one", 450, resources=limit, stopping=Stopping(grace_s=40)))
    assert one.end(200) == "succeeded"
    assert whole(one, 450)
    assert len(one.kinds()) > 1
    assert set(one.kinds()) == {"preempted", "ok"}


@pytest.mark.slow
def test_a_lost_node_s_job_goes_on_elsewhere_while_its_old_ranks_still_run(
    slurm: Lab, tmp_path: Path
) -> None:
    there = Resources(nodes=1, processes_per_node=2)
    one = submit(counting(tmp_path / "one", 500, resources=there, slurm=SlurmOptions(exclude="n2")))
    subprocess.run(["scontrol", "update", f"JobId={one.id}", "ExcNodeList="], check=True)
    until(lambda: len(one.steps(1)) > 10)
    slurm.kill_node("n1")
    try:
        until(lambda: "n2" in one.status().detail, 120)
        assert one.end() == "succeeded"
    finally:
        slurm.start_node("n1")
        slurm.wait_for_nodes()
    assert whole(one, 500)
    assert "fenced off" in one.place.rank_log(0).read_text()
    first, last = one.place.attempts()
    assert (first.kind, last.kind) == ("lost", "ok")
    outcome = one.place.outcome()
    assert outcome is not None
    assert outcome.state == "succeeded"


@pytest.mark.slow
def test_a_controller_that_is_down_or_has_forgotten_is_said(slurm: Lab, tmp_path: Path) -> None:
    one = submit(job(tmp_path / "one", "pass"))
    assert one.end() == "succeeded"
    slurm.stop_controller()
    try:
        for ask in (lambda: submit(job(tmp_path / "two", "pass")), one.status, lambda: cancel(one)):
            with pytest.raises(JobError, match=r"the controller does not answer .*scontrol ping"):
                ask()
    finally:
        slurm.start_controller(forget=True)
        slurm.wait_for_nodes()
    assert one.status().state == "unknown"
    assert submit(job(tmp_path / "three", "pass")).end() == "succeeded"
