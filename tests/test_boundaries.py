"""The house's walls: which room may import which, what stays light, how big things may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("pipeline", "jobs", "data_prep", "cluster")
SHARED_LEAVES = tuple(f"data_prep.{leaf}" for leaf in ("records", "shards", "decode", "faces", "tracks"))
HEAVY = ("torch", "ray", "mlflow", "diffusers", "deepspeed", "insightface", "cv2", "omegaconf", "av")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in packages)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    room = module_name(path).split(".")[0]
    ours = {name for name in imports(path) if within(name, (*ROOMS, "tests"))}
    allowed = {
        "jobs": ROOMS,
        "pipeline": ("pipeline", *SHARED_LEAVES),
        "data_prep": ("data_prep",),
        "cluster": ("cluster",),
    }[room]
    assert not {name for name in ours if not within(name, allowed)}


def data_prep_room(name: str) -> str:
    """The room of a module of data_prep; ``decode`` is the one of ``video`` that other packages import."""
    room = name.split(".")[1] if "." in name else ""
    return "video" if room == "decode" else room


def test_the_rooms_of_data_prep_import_each_other_in_no_circle() -> None:
    uses: dict[str, set[str]] = {}
    for path in FILES:
        if within(name := module_name(path), ("data_prep",)):
            used = {data_prep_room(other) for other in imports(path) if other.startswith("data_prep.")}
            uses.setdefault(data_prep_room(name), set()).update(used - {data_prep_room(name)})
    assert {"ingest", "analysis", "identity", "selection", "packing"} <= uses.keys()
    tuple(TopologicalSorter(uses).static_order())  # raises CycleError, which names the circle


def test_deepspeed_has_one_door() -> None:
    users = {module_name(p) for p in FILES if any(within(n, ("deepspeed",)) for n in imports(p))}
    assert all(within(user, ("pipeline.training.engine",)) for user in users)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "a file holds at most 400 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is longer than 60 lines"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_other_distribution_owns_our_names() -> None:
    owners: dict[str, set[str]] = {room: set() for room in ROOMS}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        for file in distribution.files or ():
            if file.parts[0] in owners and name != "castbank":
                owners[file.parts[0]].add(name)
    assert owners == {room: set() for room in ROOMS}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, jobs.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
