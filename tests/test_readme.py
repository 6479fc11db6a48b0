"""The README names what there is: every module, every dependency, every verb."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from jobs.__main__ import VERBS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_has_a_line_for_every_module() -> None:
    tree = README.split("## The tree")[1]
    for room in ("data_prep", "pipeline", "jobs", "cluster"):
        part = re.split(r"\n(?=\S)", tree.split(f"\n{room}/\n")[1])[0]
        listed = set(re.findall(r"^  (\S+\.py) ", part, re.MULTILINE))
        there = {str(path.relative_to(ROOT / room)) for path in (ROOT / room).rglob("*.py")}
        assert listed == there - {"__init__.py"}


def test_the_table_has_a_reason_for_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[\[<>=]", item)[0] for item in project["dependencies"]}
    rows = README.split("## Dependencies")[1].split("\n\n")[1].splitlines()[2:]
    assert {name.strip() for row in rows for name in row.split("|")[1].split(",")} == wanted


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    assert {re.split(r"[\[<>=]", item)[0].lower() for item in wanted} <= pins


def test_every_verb_is_shown() -> None:
    assert not [verb for verb in VERBS if f"castbank {verb}" not in README]


def test_every_test_that_a_complaint_is_answered_with_is_there() -> None:
    part = README.split("### What users of other pipelines complain about")[1].split("\n## ")[0]
    named = set(re.findall(r"`(test_\w+)`", part))
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 15
    assert not [name for name in named if f"def {name}(" not in text]
