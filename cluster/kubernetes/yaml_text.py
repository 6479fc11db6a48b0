"""Documents as YAML that every reader takes for the same, PyYAML as well as the parser in kubectl.

They differ in what a bare word is (``1e3``, ``0o17``, ``y`` and ``on`` are numbers and booleans to some), so text
stands in double quotes unless nobody could take it for anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z/][-A-Za-z0-9_./]*")
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf")
_UNPRINTABLE = re.compile(
    "[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


def dump(documents: Sequence[dict[str, Any]], comments: Sequence[str]) -> str:
    """Documents, of what JSON knows, in their order and after comment lines."""
    lines = [f"# {line}" for line in comments]
    for document in documents:
        lines += ["---", *_lines(document)]
    return "\n".join(lines) + "\n"


def _lines(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _entry(f"{_scalar(key)}:", value)
    elif isinstance(node, list) and node:
        for value in node:
            first, *rest = _lines(value)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(node)


def _entry(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield key
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{key} {_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) and value.lower() not in _WORDS:
        return value
    text = json.dumps(
        value, ensure_ascii=False
    )  # its strings are YAML's but for characters that YAML wants escaped
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
