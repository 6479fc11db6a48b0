"""Progress where nobody looks at a terminal, and on a real one."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from jobs.progress import ProgressBar

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_log_gets_the_first_and_the_last_line_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as progress:
        for done in range(1000):
            progress("analyse", done, 999)
        progress("pack", 0, 2)
        progress("pack", 2, 2, "written")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "analyse: 0/999",
        "analyse: 999/999",
        "pack: 0/2",
        "pack: 2/2",
    ]
    assert lines[-1].endswith(", written")
    assert "left" not in lines[1]


def test_what_was_done_before_does_not_count_in_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as progress:
        progress("analyse", 18, 18)
    assert capsys.readouterr().err == "analyse: 18/18\n"


def test_a_terminal_gets_one_bar_a_stage() -> None:
    code = (
        "from jobs.progress import ProgressBar\n"
        "with ProgressBar() as p:\n"
        "    for n in range(4): p('link', n, 3)\n"
        "    p('pack', 5, 10, 'half')"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=theirs, stdout=theirs, check=False)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert done.returncode == 0
    text = shown.decode()
    assert "3/3" in text
    assert "5/10" in text and "half" in text
    assert text.count("\n") == 2


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so at the end of a terminal whose other side is closed
        return b""
