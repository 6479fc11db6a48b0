"""The command of a job, checked before it is sent: its words are parsed as a person's would be, its configuration
is resolved and kept with the job, so that neither a typo nor a later edit is found by a node at night.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cluster.secret_values import WITH_USERINFO
from data_prep.records import InputError
from jobs import config as configs

RANKED = ("train",)  # verbs that run as several processes with a rendezvous
BY_REFERENCE = (
    "it would be written into the job's files; take it out and give it as secrets.VARIABLE=file:PATH"
)
NOT_AS_JOBS = ("submit", "jobs", "status", "logs", "cancel", "requeue", "dashboard", "demo", "proof")


@dataclass(frozen=True)
class Command:
    """castbank's words for a job, without configuration; config: the resolved one, None where the verb has none."""

    words: tuple[str, ...]
    config: Any

    @property
    def ranked(self) -> bool:
        """Whether it runs as several processes with a rendezvous."""
        return self.words[0] in RANKED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"command: {message}; {self.prog} --help says what it takes")


def resolve(words: Sequence[str], keys: Mapping[str, Any], folder: Path, workdir: Path) -> Command:
    """Check the words of a command and resolve what they configure.

    Args:
        words: castbank's, the verb first.
        keys: over the verb's configuration; nested tables or dotted names.
        folder: the job's; a training without ``run`` runs in it.
        workdir: where the command will run; a relative ``--config`` lies there.

    Raises:
        InputError: no such verb or argument, or a configuration with a wrong or missing key.
    """
    for word in words:
        if WITH_USERINFO.search(word) and "=" not in word:
            raise InputError(
                f"command: {words[0]} is given a URL with a user or password in it; {BY_REFERENCE}"
            )
    args = _parsed(words)
    given = [f"{key}={_as_yaml(value)}" for key, value in _dotted(keys).items()]
    schema = getattr(args, "schema", None)
    if schema is None:
        if given:
            raise InputError(f"keys: {words[0]} takes no configuration; put its options into command")
        return Command(tuple(words), None)
    needed = [item.name for item in dataclasses.fields(schema) if item.default == "???"]
    places = [f"{name}={_as_yaml(str(getattr(args, name)))}" for name in needed if hasattr(args, name)]
    if "run" in needed:
        places.append(f"run={_as_yaml(str(folder))}")
    path = workdir / args.config if args.config else None
    config = configs.load(schema, path, [*places, *args.overrides, *given])
    for key, value in configs.flat(config).items():
        if WITH_USERINFO.search(value):
            raise InputError(f"{key}: holds a user or password; {BY_REFERENCE}")
    return Command(_without_configuration(words, args), config)


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    from jobs.__main__ import VERBS

    verb = words[0]
    if verb not in VERBS or verb in NOT_AS_JOBS:
        possible = ", ".join(name for name in VERBS if name not in NOT_AS_JOBS)
        raise InputError(f"command: came {verb!r}; a job's command begins with one of {possible}")
    parser = _Parser(prog=f"castbank {verb}", add_help=False)
    importlib.import_module(f"jobs.{verb}").configure(parser)
    args, rest = parser.parse_known_args(list(words[1:]))
    odd = [word for word in rest if word.startswith("-") or "=" not in word]
    if odd or (rest and not hasattr(args, "overrides")):
        parser.error(f"unrecognised {' '.join(odd or rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _without_configuration(words: Sequence[str], args: argparse.Namespace) -> tuple[str, ...]:
    """The words without ``--config FILE`` and without the key=value arguments, the last ones of each first."""
    left, overrides = list(words), list(args.overrides)
    for at in reversed(range(len(left))):
        if left[at] in overrides and not left[at - 1].startswith("--"):
            overrides.remove(left.pop(at))
    for at in reversed(range(len(left))):
        if left[at].startswith("--config="):
            del left[at]
        elif left[at] == "--config":
            del left[at : at + 2]
    return tuple(left)


def _dotted(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys; a table that is empty, or a configuration's own table of names, stays one."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            found |= _dotted(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _as_yaml(value: Any) -> str:
    """A value as a key=value argument takes it, always on one line."""
    if isinstance(value, str):
        if "${" in value:
            raise InputError(f"{value!r}: '${{' is how a configuration refers to its keys; rename it")
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
