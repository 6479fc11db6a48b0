"""This machine's queue on real processes: order, room, cancellation, kills, a reboot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.job_folder import Attempt, JobFolder
from cluster.launchers import launcher
from cluster.local import children
from cluster.local_queue import Queue, Runner, capacity, own_queue
from cluster.rendezvous import find
from cluster.spec import LIVE, JobError, JobSpec, Resources, Retry, Status
from tests.cluster.test_spec import hostile_spec
from tests.submitted import empty_the_queue
from tests.waiting import until

CPUS = capacity()[0]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty CASTBANK_HOME whose runner has ended when the test has."""
    monkeypatch.setenv("CASTBANK_HOME", str(tmp_path / "home"))
    yield tmp_path
    empty_the_queue()


def job(folder: Path, code: str, *, cpus: int = 1, gpus: int = 0, **changes: object) -> JobSpec:
    command = (sys.executable, "-u", "-c", code)
    spec = JobSpec(folder.name, folder.name, "local", command, folder, folder.parent)
    needs = Resources(cpus_per_process=cpus, gpus_per_process=gpus)
    spec = replace(spec, resources=needs, retry=Retry(backoff_s=0), **changes)  # type: ignore[arg-type]
    JobFolder(folder).write_spec(spec)
    return spec


def submit(spec: JobSpec) -> str:
    return launcher("local").submit(spec, ())


def state(spec: JobSpec) -> str:
    return launcher("local").states({spec.id: spec})[spec.id].state


def ended(spec: JobSpec) -> str:
    return until(lambda: state(spec) if state(spec) not in LIVE else "")


def said(spec: JobSpec) -> str:
    log = JobFolder(spec.folder).rank_log(0)
    return log.read_text() if log.is_file() else ""


def test_a_job_leaves_its_log_and_its_outcome(home: Path) -> None:
    spec = job(home / "good", "import os; print('it is', os.environ['WHO'])", environment={"WHO": "a 'b'"})
    assert state(spec) == "unknown"
    assert submit(spec) == "good"
    assert ended(spec) == "succeeded"
    assert said(spec) == "it is a 'b'\n"
    until(lambda: not own_queue().entries())


def test_the_submitters_secrets_stay_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-value")
    spec = job(
        home / "env", "import os; print(os.environ.get('AWS_SECRET_ACCESS_KEY'), 'PATH' in os.environ)"
    )
    submit(spec)
    assert ended(spec) == "succeeded"
    assert said(spec) == "None True\n"
    assert not [p for p in home.rglob("*") if p.is_file() and b"s3cr3t-value" in p.read_bytes()]


def test_jobs_wait_for_room_and_go_by_priority(home: Path) -> None:
    gate = home / "gate"
    os.mkfifo(gate)
    first = job(home / "first", f"open({str(gate)!r}).read()", cpus=CPUS)
    note = "open({!r}, 'a').write('{} ')"
    low = job(home / "low", note.format(str(home / "order"), "low"), cpus=CPUS)
    high = job(home / "high", note.format(str(home / "order"), "high"), cpus=CPUS, priority=5)
    submit(first)
    until(lambda: state(first) == "running")
    submit(low)
    submit(high)
    assert [state(spec) for spec in (first, low, high)] == ["running", "queued", "queued"]
    with gate.open("w"):
        pass
    assert [ended(spec) for spec in (low, high)] == ["succeeded"] * 2
    assert (home / "order").read_text() == "high low "


def test_a_job_that_never_fits_is_refused(home: Path) -> None:
    with pytest.raises(
        JobError, match=rf"cpus_per_process: .*{CPUS + 1} CPUs in all, this machine has {CPUS}"
    ):
        submit(job(home / "large", "", cpus=CPUS + 1))
    with pytest.raises(JobError, match=r"secrets\.TOKEN: env:… cannot be resolved on local"):
        submit(job(home / "secret", "", secrets={"TOKEN": "env:TOKEN"}))
    with pytest.raises(JobError, match=rf"workdir: '{home}/nowhere' is no folder of this machine"):
        submit(replace(job(home / "lost", ""), workdir=home / "nowhere"))
    assert not own_queue().entries()


def test_what_each_process_of_an_attempt_is_told(home: Path) -> None:
    attempt = Attempt(1, "token", "host", "", 0.0)
    (alone,) = children(job(home / "one", "{part}"), attempt)
    assert (alone.command[-1], alone.environment) == ("{part}", {})
    parts = children(job(home / "parts", "{part}", array=3), attempt)
    assert [part.command[-1] for part in parts] == ["1/3", "2/3", "3/3"]
    assert [part.log.name for part in parts] == ["rank-0.log", "rank-1.log", "rank-2.log"]
    assert not any(part.environment for part in parts)
    spec = job(home / "ranks", "", ranks=True)
    ranks = children(replace(spec, resources=Resources(processes_per_node=2)), attempt)
    places = [place for rank in ranks if (place := find(rank.environment)) is not None]
    assert [(place.rank, place.local_rank, place.world) for place in places] == [(0, 0, 2), (1, 1, 2)]
    assert len({(place.master_addr, place.master_port) for place in places}) == 1


STOPPABLE = (
    "import signal, sys\nfrom pathlib import Path\n"
    "if Path('{again}').exists(): print('went on'); sys.exit()\n"
    "def stop(*_):\n    Path('{again}').touch(); print('checkpoint'); sys.exit(75)\n"
    "signal.signal(signal.SIGTERM, stop)\nprint('ready'); signal.pause()"
)


def test_cancel_lets_a_running_job_write_its_checkpoint(home: Path) -> None:
    spec = job(home / "run", STOPPABLE.format(again=home / "again"))
    waiting = job(home / "wait", "print('ran')", cpus=CPUS)
    submit(spec)
    until(lambda: "ready" in said(spec))
    submit(waiting)
    for each in (spec, waiting, spec):  # twice is once
        JobFolder(each.folder).cancelled.touch()
        launcher("local").cancel(each, each.id)
    assert [ended(each) for each in (spec, waiting)] == ["cancelled", "cancelled"]
    assert said(spec) == "ready\ncheckpoint\n"
    assert said(waiting) == ""


def test_a_preempted_job_goes_on(home: Path) -> None:
    spec = job(home / "run", STOPPABLE.format(again=home / "again"))
    submit(spec)
    until(lambda: "ready" in said(spec))
    (entry,) = own_queue().entries().values()
    assert entry.supervisor
    os.kill(entry.supervisor.pid, signal.SIGTERM)
    assert ended(spec) == "succeeded"
    assert said(spec) == "ready\ncheckpoint\nwent on\n"


@pytest.mark.parametrize("reboot", [False, True])
def test_what_was_killed_goes_on(reboot: bool, home: Path) -> None:
    """A reboot ends supervisor and runner; the next castbank command finds the queue and starts a runner."""
    again = home / "again"
    code = f"from pathlib import Path\nif Path({str(again)!r}).exists(): print('went on')\n"
    code += "else: print('ready'); import signal; signal.pause()"
    spec = job(home / "run", code)
    submit(spec)
    until(lambda: "ready" in said(spec))
    again.touch()
    (entry,) = own_queue().entries().values()
    assert entry.supervisor
    runner = psutil.Process(entry.supervisor.pid).parent()
    if reboot and runner:
        runner.kill()
    os.kill(entry.supervisor.pid, signal.SIGKILL)
    assert ended(spec) == "succeeded"
    assert [a.kind for a in JobFolder(spec.folder).attempts()] == ["lost", "ok"]


def test_gpus_are_given_to_one_job_each(home: Path) -> None:
    queue = Queue(home / "queue")
    os.mkfifo(home / "gate")
    gate = os.open(home / "gate", os.O_RDWR)  # open for both, so that neither side waits for the other
    read = f"os.read(os.open({str(home / 'gate')!r}, os.O_RDONLY), 1)"
    code = f"import os; print(os.environ['CUDA_VISIBLE_DEVICES']); {read}"
    specs = [job(home / f"gpu{k}", code, gpus=2) for k in range(3)]
    for spec in specs:
        JobFolder(spec.folder).script.write_text(launcher("local").render(spec))
        queue.add(spec)
    runner = Runner(queue, num_cpus=8, num_gpus=4)
    assert runner.step()
    until(lambda: [said(spec) for spec in specs] == ["0,1\n", "2,3\n", ""])
    assert runner.step()
    assert [entry.gpus for entry in queue.entries().values()] == [(0, 1), (2, 3), ()]
    os.write(gate, b"xxx")
    until(lambda: not runner.step())
    os.close(gate)
    assert said(specs[2]) in ("0,1\n", "2,3\n")


@pytest.mark.parametrize("seed", range(100))
def test_any_name_is_only_a_name(seed: int) -> None:
    spec = replace(hostile_spec(seed), place="local")
    text = launcher("local").render(spec)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    body = [line for line in text.splitlines() if not line.startswith("#")]
    assert sum(line.startswith("exec ") for line in body) == 1


def test_a_step_of_a_chain_leaves_the_core_to_the_one_before_it(home: Path) -> None:
    """Though it is of higher priority and there is room for one only."""
    os.mkfifo(home / "gate")
    first = job(home / "first", f"open({str(home / 'gate')!r}).read()", cpus=CPUS)
    second = job(home / "second", "print('ran')", cpus=CPUS, after=(first.folder,), priority=5)
    third = job(home / "third", "", after=(home / "first", home / "second"))
    for spec in (second, third, first):
        submit(spec)
    until(lambda: state(first) == "running")
    waiting = launcher("local").states({spec.id: spec for spec in (second, third)})
    assert waiting == {each: Status("queued", f"after {home / 'first'}") for each in ("second", "third")}
    with (home / "gate").open("w"):
        pass
    assert [ended(spec) for spec in (first, second, third)] == ["succeeded"] * 3


def test_two_submissions_of_a_folder_do_not_take_each_other_over(home: Path) -> None:
    """The second comes while the supervisor of the first is there; without an outcome neither would end."""
    spec = job(home / "run", "print('ran')")
    submit(spec)
    until(lambda: JobFolder(spec.folder).outcome())
    JobFolder(spec.folder).renew()
    submit(spec)
    assert ended(spec) == "succeeded"
    until(lambda: not own_queue().entries())
    assert [attempt.kind for attempt in JobFolder(spec.folder).attempts()] == ["ok", "ok"]


def test_machines_that_share_a_home_folder_have_a_queue_each(home: Path) -> None:
    spec = job(home / "there", "print('ran')")
    there = Queue(own_queue().folder.with_name("other-machine"))
    there.add(spec)
    assert own_queue().folder.name == os.uname().nodename
    (path,) = there.paths()
    told = Status("queued", f"on other-machine; ask there, or delete {path} if that machine is gone for good")
    assert launcher("local").states({"there": spec, "none": job(home / "none", "")}) == {
        "there": told,
        "none": Status("unknown"),
    }
    submit(job(home / "here", ""))
    until(lambda: not own_queue().entries())
    assert there.paths() == [path]
    JobFolder(spec.folder).write_outcome("succeeded", 0, "")
    assert state(spec) == "succeeded"


def test_entries_are_plain_json(home: Path) -> None:
    queue = Queue(home / "queue")
    queue.add(job(home / "plain", ""))
    (path,) = queue.folder.glob("*.json")
    assert json.loads(path.read_text())["folder"] == str(home / "plain")
