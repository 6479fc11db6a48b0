"""Groups of real processes: how they end together, and that none stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.processes import Child, Ended, Group
from tests.waiting import until

WAITS = "import signal; signal.pause()"


def children(folder: Path, *codes: str) -> list[Child]:
    return [
        Child((sys.executable, "-u", "-c", code), folder / f"{k}.log", {"PLACE": str(k)})
        for k, code in enumerate(codes)
    ]


@pytest.mark.parametrize(
    ("codes", "ended"),
    [
        (["pass", "pass"], Ended(0, 0)),
        (["pass", "raise SystemExit(75)"], Ended(75, 1)),
        (["pass", "raise SystemExit(9)"], Ended(9, 1)),
        (["import os; os.kill(os.getpid(), 9)"], Ended(137, 0)),
        ([WAITS, "raise SystemExit(2)"], Ended(2, 1)),  # a peer that waits for it is killed
    ],
)
def test_a_group_ends_as_one(codes: list[str], ended: Ended, tmp_path: Path) -> None:
    group = Group(children(tmp_path, *codes), tmp_path)
    assert until(group.ended) == ended


def test_bad_input_of_one_says_more_than_what_its_peers_make_of_it(tmp_path: Path) -> None:
    """The one that knows is slower: its peers see the connection close first."""
    os.mkfifo(tmp_path / "gate")
    slow = f"open({str(tmp_path / 'gate')!r}).read(); raise SystemExit(2)"
    group = Group(children(tmp_path, "raise SystemExit(1)", slow), tmp_path)
    with (tmp_path / "gate").open("w"):
        assert group.ended() is None
    assert until(group.ended) == Ended(2, 1)


def test_signals_reach_all_and_output_goes_to_files(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "print('ready', os.environ['PLACE']); signal.pause()"
    )
    group = Group(children(tmp_path, code, code), tmp_path)
    until(lambda: all((tmp_path / f"{k}.log").read_text() == f"ready {k}\n" for k in range(2)))
    assert group.ended() is None
    group.signal(signal.SIGTERM)
    assert until(group.ended) == Ended(75, 0)


def test_nothing_stays_when_one_cannot_be_started(tmp_path: Path) -> None:
    first, _ = children(tmp_path, f"import os; print(os.getpid()); {WAITS}", "pass")
    others = {p.pid for p in psutil.Process().children()}  # of tests before: a Ray, say
    with pytest.raises(FileNotFoundError):
        Group([first, Child(("/no/such/program",), tmp_path / "none.log")], tmp_path)
    left = [p for p in psutil.Process().children() if p.pid not in others]
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]


def test_a_supervisor_that_is_killed_takes_its_processes_along(tmp_path: Path) -> None:
    code = (
        "import sys, signal; from pathlib import Path; from cluster.processes import *\n"
        f"Group([Child((sys.executable, '-c', {WAITS!r}), Path({str(tmp_path / 'x.log')!r}))], Path('/'))\n"
        "print('started', flush=True); signal.pause()"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert supervisor.stdout is not None
    assert supervisor.stdout.readline() == "started\n"
    (child,) = psutil.Process(supervisor.pid).children()
    supervisor.kill()
    supervisor.wait()
    child.wait(timeout=30)


def test_one_that_the_kernel_cannot_end_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one that waits for a file server; here no signal reaches it."""
    group = Group(children(tmp_path, WAITS, "raise SystemExit(9)"), tmp_path)
    (waits,) = (p for p in psutil.Process().children() if WAITS in p.cmdline())
    try:
        with monkeypatch.context() as kernel:
            kernel.setattr("os.killpg", lambda *_: None)
            kernel.setattr("cluster.processes.KILL_S", 0.0)
            kernel.setattr("cluster.processes.LAST_WORDS_S", 0.0)
            assert until(group.ended) == Ended(9, 1)
        assert f"process {waits.pid} is still there 0 s after its kill" in capsys.readouterr().err
        assert waits.is_running()
    finally:
        waits.kill()
