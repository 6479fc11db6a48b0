"""Secrets by reference: a job file names where a value is found, and the value is read where the job runs.

No value is ever written to a rendered script, the spec, a log or a command line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cluster.spec import JobError

KINDS = ("env", "file", "kubernetes")
WITH_USERINFO = re.compile(r"://[^/@\s]+@")  # a URL with a user, and mostly a password or a token, in it
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD)(_ID)?$", re.IGNORECASE)  # of a variable


def split(variable: str, reference: str) -> tuple[str, str]:
    """Kind and place of a reference.

    Raises:
        JobError: it is none, as where somebody has written the value itself; the value is not repeated.
    """
    kind, colon, place = reference.partition(":")
    if not colon or kind not in KINDS or not place:
        raise JobError(
            f"secrets.{variable}: what is given is no reference; a secret's value does not belong in a job file. "
            "Give env:NAME, file:PATH or kubernetes:SECRET/KEY"
        )
    return kind, place


def check(references: Mapping[str, str], allowed: tuple[str, ...], place: str) -> None:
    """Raise JobError for a reference that a place cannot resolve."""
    for variable, reference in references.items():
        kind, _ = split(variable, reference)
        if kind not in allowed:
            raise JobError(
                f"secrets.{variable}: {kind}:… cannot be resolved on {place}; allowed are "
                f"{', '.join(f'{name}:…' for name in allowed)}"
            )


def secret_values(references: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The values, read now and here; Kubernetes has put its own into the environment already.

    Raises:
        JobError: a variable is not set, or a file cannot be read.
    """
    values = {}
    for variable, reference in references.items():
        kind, place = split(variable, reference)
        if kind == "file":
            try:
                values[variable] = Path(place).expanduser().read_text(encoding="utf-8").strip()
            except OSError as error:
                raise JobError(f"secrets.{variable}: {place} cannot be read: {error.strerror}") from error
        elif kind == "env":
            if place not in environment:
                raise JobError(f"secrets.{variable}: {place} is not set where the job runs")
            values[variable] = environment[place]
    return values
