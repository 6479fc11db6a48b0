"""What a verb's configuration offers, for ``--help``: every key, its default and the reason beside its declaration.

A knob is declared once, as a field of a frozen dataclass with a comment, behind or above it; this module reads that
declaration, so that help cannot say anything else.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import typing
from pathlib import Path
from typing import Any

KEY_WIDTH, TEXT_WIDTH = 42, 118


def add_arguments(parser: argparse.ArgumentParser, schema: type[Any], example: str) -> None:
    """Give a verb ``--config`` and ``key=value`` arguments, and list the keys below its help."""
    parser.add_argument("--config", type=Path, help="YAML file merged over the defaults")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="merged last; the keys are below"
    )
    parser.set_defaults(schema=schema)  # for whoever wants to know what the arguments configure
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"example:\n  {example}\n\nkeys:\n{describe(schema)}"


def describe(schema: type[Any]) -> str:
    """One entry per key of a schema: ``section.key = default`` and the comment of its declaration."""
    return "\n".join(_entries(schema, ""))


def _entries(schema: type[Any], prefix: str) -> list[str]:
    lines: list[str] = []
    hints = typing.get_type_hints(schema)
    comments = _comments(schema)
    for field in dataclasses.fields(schema):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            lines.extend(_entries(typing.cast(type[Any], hint), f"{prefix}{field.name}."))
            continue
        head = f"  {prefix}{field.name} = {_default(field, hint)}"
        text = comments.get(field.name, "")
        if text and len(head) >= KEY_WIDTH:
            lines.append(head)
            head = ""
        lines.extend(
            textwrap.wrap(
                text,
                TEXT_WIDTH,
                initial_indent=head.ljust(KEY_WIDTH),
                subsequent_indent=" " * KEY_WIDTH,
            )
            if text
            else [head]
        )
    return lines


def _default(field: dataclasses.Field[Any], hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        choices = "|".join(str(choice) for choice in typing.get_args(hint))
        return f"{field.default} ({choices})"
    if field.default == "???":
        return "(must be given)"
    if field.default is dataclasses.MISSING:
        return "{}"  # the only kind of default that is made anew is an empty table
    return "''" if field.default == "" else _yaml(field.default)


def _yaml(value: Any) -> str:
    """A value as a person gives it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(_yaml, value))}]" if isinstance(value, tuple) else str(value)


def _comments(schema: type[Any]) -> dict[str, str]:
    """Field name to the comments on the lines of its declaration, in the class or the one it extends."""
    found: dict[str, str] = {}
    for ancestor in reversed(schema.__mro__[:-1]):  # without object
        found |= _own_comments(ancestor)
    return found


def _own_comments(schema: type[Any]) -> dict[str, str]:
    """The same of one class: comments on the lines of a declaration, and those that stand alone right above it."""
    source = textwrap.dedent(inspect.getsource(schema))
    lines = source.splitlines()
    by_line = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while lines[first - 2].lstrip().startswith("#"):
                first -= 1
            said = (by_line.get(n, "") for n in range(first, (node.end_lineno or 0) + 1))
            found[node.target.id] = " ".join(filter(None, said))
    return found
