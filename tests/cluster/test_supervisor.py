"""A job from its first attempt to its outcome, with real processes that fail, hang, stop and go on."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.job_folder import Attempt, JobFolder
from cluster.spec import JobSpec, Resources, Retry, Stopping
from tests.waiting import until

RANK = """
import json, os, signal, sys, time
from pathlib import Path
job, rank = Path(os.environ["CASTBANK_JOB"]) / "job", os.environ["RANK"]
steps = Path(f"steps-{rank}")
def beat(step, phase="train", skew_s=0):
    now = time.time() + skew_s
    own = dict(rank=int(rank), host=f"host{rank}", pid=os.getpid(), token=os.environ["CASTBANK_ATTEMPT"])
    text = json.dumps(own | dict(phase=phase, step=step, step_at_s=now, alive_at_s=now))
    (job / "heartbeats").mkdir(exist_ok=True)
    aside = job / "heartbeats" / f".{rank}"
    aside.write_text(text)
    aside.rename(job / "heartbeats" / f"rank-{rank}.json")
def done():
    return int(steps.read_text()) if steps.exists() else 0
def stop(*_):
    print("checkpoint"); sys.exit(75)
signal.signal(signal.SIGTERM, stop)
"""


def job(folder: Path, code: str, **changes: object) -> JobSpec:
    """A job of one process unless changed, run in its own folder, tried again at once."""
    spec = JobSpec(
        "test-0001",
        "test",
        "local",
        (sys.executable, "-u", "-c", RANK + code),
        folder,
        folder,
        ranks=True,
        retry=Retry(backoff_s=0),
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def start(spec: JobSpec) -> subprocess.Popen[str]:
    place = JobFolder(spec.folder)
    place.job.mkdir(exist_ok=True)
    place.write_spec(spec)
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.supervisor", str(spec.folder)], stderr=subprocess.PIPE, text=True
    )


def run(spec: JobSpec) -> tuple[int, JobFolder]:
    process = start(spec)
    process.communicate(timeout=60)
    return process.returncode, JobFolder(spec.folder)


def test_every_rank_gets_its_place_and_its_log(tmp_path: Path) -> None:
    code = "print(rank, os.environ['WORLD_SIZE'], os.environ['MASTER_ADDR'], os.environ['A'])"
    spec = job(tmp_path, code, resources=Resources(nodes=2, processes_per_node=2), environment={"A": "b c"})
    code_, place = run(spec)
    assert code_ == 0
    assert [place.rank_log(k).read_text() for k in range(4)] == [f"{k} 4 127.0.0.1 b c\n" for k in range(4)]
    outcome = place.outcome()
    assert outcome is not None
    assert (outcome.state, outcome.exit_code) == ("succeeded", 0)


def test_a_failure_is_tried_again_and_what_failed_is_noted(tmp_path: Path) -> None:
    code = "beat(done() + 1); steps.write_text(str(done() + 1)); sys.exit(0 if done() == 3 else 9)"
    code_, place = run(job(tmp_path, code))
    assert code_ == 0
    told = [(a.kind, a.exit_code, a.step, a.failed_rank, a.failed_host) for a in place.attempts()]
    assert told == [("failed", 9, 1, 0, "host0"), ("failed", 9, 2, 0, "host0"), ("ok", 0, 3, None, "")]
    assert len({a.token for a in place.attempts()}) == 3


def test_a_crash_loop_ends_and_bad_input_is_not_tried_twice(tmp_path: Path) -> None:
    loop = job(tmp_path / "loop", "sys.exit(1)", retry=Retry(backoff_s=0, max_without_progress=2))
    bad = job(tmp_path / "bad", "sys.exit(2)")
    for spec in (loop, bad):
        spec.folder.mkdir()
    assert run(loop)[0] == 1
    assert run(bad)[0] == 2
    outcomes = [JobFolder(spec.folder).outcome() for spec in (loop, bad)]
    assert "crash loop: 2 failures" in (outcomes[0].reason if outcomes[0] else "")
    assert len(JobFolder(bad.folder).attempts()) == 1


@pytest.mark.parametrize("how", ["SIGTERM", "SIGUSR1", "stop", "cancelled"])
def test_a_request_to_stop_lets_ranks_write_a_checkpoint(how: str, tmp_path: Path) -> None:
    spec = job(tmp_path, "beat(7); print('ready'); signal.pause()", resources=Resources(processes_per_node=2))
    process, place = start(spec), JobFolder(tmp_path)
    until(
        lambda: (
            [place.rank_log(k).is_file() and "ready" in place.rank_log(k).read_text() for k in (0, 1)]
            == [True] * 2
        )
    )
    if how.startswith("SIG"):
        process.send_signal(getattr(signal, how))
    else:
        getattr(place, how).touch()
    process.communicate(timeout=60)
    assert process.returncode == (130 if how == "cancelled" else 75)
    assert place.rank_log(1).read_text() == "ready\ncheckpoint\n"
    outcome, (attempt,) = place.outcome(), place.attempts()
    assert outcome is not None
    assert outcome.state == ("cancelled" if how == "cancelled" else "preempted")
    assert (attempt.kind, attempt.step) == ("preempted", 7)
    assert attempt.stopped_s is not None
    assert not place.stop.exists()


def test_one_that_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready')\nwhile True: signal.pause()"
    spec = job(tmp_path, code, stopping=Stopping(grace_s=1))
    process, place = start(spec), JobFolder(tmp_path)
    until(lambda: place.rank_log(0).is_file() and place.rank_log(0).read_text())
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert "no end within 1 s" in place.attempts()[0].reason


def test_a_hung_rank_ends_its_attempt(tmp_path: Path) -> None:
    code = (
        "if rank == '1' and not steps.exists():\n"
        "    steps.touch(); beat(5, skew_s=1e6); signal.pause()\n"
        "beat(6, 'done')"
    )
    spec = job(tmp_path, code, resources=Resources(processes_per_node=2), stopping=Stopping(hang_s=4))
    code_, place = run(spec)
    assert code_ == 0
    first, second = place.attempts()
    assert (first.kind, first.failed_rank, first.failed_host, second.kind) == ("hung", 1, "host1", "ok")
    assert "rank 1 on host1 not seen for" in first.reason


def test_a_rank_that_never_says_a_word_ends_the_attempt(tmp_path: Path) -> None:
    code = "if rank == '0': beat(0)\nsignal.pause()"
    needs = {"resources": Resources(processes_per_node=2), "retry": Retry(max_failures=1)}
    _, place = run(job(tmp_path, code, stopping=Stopping(hang_s=3), **needs))
    (attempt,) = place.attempts()
    assert attempt.kind == "hung"
    assert attempt.failed_rank in (0, 1)  # rank 0 has not moved for as long


def test_an_attempt_that_was_cut_off_is_noted_by_the_next_supervisor(tmp_path: Path) -> None:
    spec = job(
        tmp_path, "beat(4)\nif done(): sys.exit()\nsteps.write_text('1'); print('ready'); signal.pause()"
    )
    process, place = start(spec), JobFolder(tmp_path)
    until(lambda: place.rank_log(0).is_file() and place.rank_log(0).read_text())
    process.kill()
    process.communicate()
    assert place.outcome() is None
    assert run(spec)[0] == 0
    assert [(a.number, a.kind, a.step) for a in place.attempts()] == [(1, "lost", 4), (2, "ok", 4)]


def test_a_job_waits_for_another_and_fails_with_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    process = start(job(second, "print('ran')", after=(first,)))
    assert JobFolder(second).attempts() == []
    JobFolder(first).write_outcome("succeeded", 0, "")
    process.communicate(timeout=60)
    assert process.returncode == 0
    JobFolder(first).write_outcome("failed", 1, "")
    JobFolder(second).renew()
    assert run(job(second, "print('ran')", after=(first,)))[0] == 1
    outcome = JobFolder(second).outcome()
    assert outcome is not None
    assert outcome.reason == f"the job of {first}, which this one comes after, has failed"


def test_parts_of_an_array_share_the_work(tmp_path: Path) -> None:
    spec = job(tmp_path, "", command=(sys.executable, "-c", "import sys; print(sys.argv[1])", "{part}"))
    code, place = run(replace(spec, array=3, ranks=False))
    assert code == 0
    assert [place.rank_log(k).read_text() for k in range(3)] == ["1/3\n", "2/3\n", "3/3\n"]


def test_secrets_reach_the_process_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cr3t-value\n")
    secrets = {"TOKEN": f"file:{tmp_path / 'token'}"}
    check = "sys.exit(0 if os.environ['TOKEN'][::-1] == 'eulav-t3rc3s' else 9)"
    code, place = run(job(tmp_path, check, secrets=secrets))
    assert code == 0
    for path in place.job.rglob("*"):
        assert not path.is_file() or "s3cr3t-value" not in path.read_text()
    place.renew()
    code, place = run(job(tmp_path, "", secrets={"TOKEN": "file:/none"}))
    assert code == 2
    assert "secrets.TOKEN: /none cannot be read" in place.attempts()[-1].reason


def test_a_command_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    code, place = run(job(tmp_path, "", command=("/no/such/python",)))
    assert code == 2
    assert "cannot be started" in place.attempts()[0].reason


def test_what_succeeded_is_not_run_again(tmp_path: Path) -> None:
    """As where a scheduler puts a job back that had just ended."""
    spec = job(tmp_path, "print('ran')")
    assert [run(spec)[0] for _ in range(2)] == [0, 0]
    assert JobFolder(tmp_path).rank_log(0).read_text() == "ran\n"


def test_a_supervisor_that_another_replaced_ends_without_a_word(tmp_path: Path) -> None:
    spec = job(tmp_path, "print('ready'); signal.pause()")
    process, place = start(spec), JobFolder(tmp_path)
    until(lambda: place.rank_log(0).is_file() and place.rank_log(0).read_text())
    place.claim("another")
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert place.outcome() is None
    assert place.attempts()[0].end_s is None


def test_the_rank_that_a_launcher_noted_is_blamed(tmp_path: Path) -> None:
    code = (
        "from cluster.job_folder import JobFolder\n"
        "JobFolder(job.parent).note_failed_rank(5, 'node7', os.environ['CASTBANK_ATTEMPT']); sys.exit(9)"
    )
    _, place = run(job(tmp_path, code, retry=Retry(max_failures=1)))
    (attempt,) = place.attempts()
    assert (attempt.failed_rank, attempt.failed_host) == (5, "node7")
    assert "process 5 of 1 ended with 9" in attempt.reason


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    """Of a machine that went down."""
    place = JobFolder(tmp_path)
    place.job.mkdir()
    place.note_attempt(Attempt(1, "t", "h", "", 1.0))
    with (place.job / "attempts.jsonl").open("a") as stream:
        stream.write('{"numb')
    assert [attempt.number for attempt in place.attempts()] == [1]
    place.note_attempt(Attempt(2, "u", "h", "", 2.0))  # nor is the next one lost with it
    assert [attempt.number for attempt in place.attempts()] == [1, 2]


def test_a_supervisor_that_waited_leaves_the_job_to_the_one_that_has_it(tmp_path: Path) -> None:
    spec, place = job(tmp_path, "print('ran')"), JobFolder(tmp_path)
    place.write_spec(spec)
    code = (
        "import sys; from pathlib import Path; from cluster.supervisor import *\n"
        f"late = Supervisor(Path({str(tmp_path)!r})); JobFolder(late._spec.folder).claim('another')\n"
        "sys.exit(late.run())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "another has taken the job over" in done.stderr) == (1, True)
    assert (place.attempts(), place.holder(), place.outcome()) == ([], "another", None)


@pytest.mark.parametrize("how", ["it begins the next attempt", "it is asked to stop"])
def test_a_supervisor_between_attempts_leaves_the_job_to_the_one_that_has_it(
    how: str, tmp_path: Path
) -> None:
    spec = job(tmp_path, "sys.exit(9)", retry=Retry(backoff_s=600 if "stop" in how else 3))
    process, place = start(spec), JobFolder(tmp_path)
    until(lambda: [attempt.end_s for attempt in place.attempts()] not in ([], [None]))
    place.claim("another")
    if "stop" in how:
        process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 1
    assert (len(place.attempts()), place.holder(), place.outcome()) == (1, "another", None)


def test_a_row_of_attempts_that_were_cut_off_ends_the_job(tmp_path: Path) -> None:
    place = JobFolder(tmp_path)
    place.job.mkdir()
    for number in (1, 2, 3):
        place.note_attempt(Attempt(number, f"t{number}", "h", "", 1.0))
    assert run(job(tmp_path, "print('ran')"))[0] == 1
    outcome = place.outcome()
    assert outcome is not None
    assert outcome.reason == "cut off; crash loop: 3 failures in a row without a step beyond 0"
    place.renew()
    place.forgive()  # as when its owner asks for it once more
    assert run(job(tmp_path, "print('ran')"))[0] == 0


def test_one_that_never_stops_in_time_and_comes_no_further_has_failed(tmp_path: Path) -> None:
    code = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); beat(4); print('ready')\nwhile True: signal.pause()"
    )
    spec = job(tmp_path, code, stopping=Stopping(grace_s=0), retry=Retry(max_without_progress=2))
    place, codes = JobFolder(tmp_path), []
    for number in (1, 2):
        process = start(spec)
        ready = "ready\n" * number
        until(lambda ready=ready: place.rank_log(0).is_file() and place.rank_log(0).read_text() == ready)
        process.terminate()
        process.communicate(timeout=60)
        codes.append(process.returncode)
    assert codes == [75, 137]
    assert [(a.kind, a.exit_code, a.step) for a in place.attempts()] == [("preempted", 137, 4)] * 2
    outcome = place.outcome()
    assert outcome is not None
    assert (outcome.state, "crash loop" in outcome.reason) == ("failed", True)
