"""One checked thing and what to do about it; and how a program is asked something without waiting for ever."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "broken"]
NOT_THERE, TOO_LATE = 127, 124  # exit codes as a shell and timeout(1) give them
ASK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Finding:
    """One checked thing: its state, what was seen, and the remedy (empty when fine)."""

    name: str
    state: State
    seen: str
    remedy: str = ""


Findings = Iterator[Finding]


@dataclass(frozen=True)
class Answer:
    """What a program said; code is 127 where it is not there and 124 where it took too long."""

    code: int
    out: str
    error: str

    @property
    def why(self) -> str:
        """The last line of its complaint."""
        lines = [line.strip() for line in (self.error or self.out).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


def ask(
    words: Sequence[str],
    timeout_s: float = ASK_TIMEOUT_S,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run a program to its end, or for ``timeout_s`` seconds."""
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        return Answer(NOT_THERE, "", f"{words[0]} is not there")
    except subprocess.TimeoutExpired:
        return Answer(TOO_LATE, "", f"no answer within {timeout_s:g} s")
    return Answer(done.returncode, done.stdout, done.stderr)
