"""Job files: what holds for all steps and what a step says, chains, arrays, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.records import InputError
from jobs.job_file import Planned, read

CHAIN = """
name: film
folder: {folder}
environment: {{A: "1"}}
resources: {{nodes: 2, cpus_per_process: 3}}
slurm: {{partition: gpu}}
steps:
  prepare:
    command: [prepare, clips.csv, --output, "${{folder}}/shards"]
    array: 4
  train:
    command: [train]
    keys: {{data: {{shards: "${{folder}}/shards"}}}}
    resources: {{processes_per_node: 8}}
    environment: {{B: "2"}}
  look: {{command: [report, x], after: [prepare]}}
"""


def plan(tmp_path: Path, text: str, *overrides: str) -> list[Planned]:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return read(path, overrides)


def test_a_chain_shares_what_stands_at_the_top(tmp_path: Path) -> None:
    parts, prepare, train, look = plan(tmp_path, CHAIN.format(folder=tmp_path / "film"))
    assert [p.label for p in (parts, prepare, train, look)] == ["prepare-parts", "prepare", "train", "look"]
    assert [p.after for p in (parts, prepare, train, look)] == [
        (),
        ("prepare-parts",),
        ("prepare",),
        ("prepare",),
    ]
    assert train.folder == tmp_path / "film" / "train"
    assert train.name == "film-train"
    assert (train.step.resources.nodes, train.step.resources.cpus_per_process) == (2, 3)
    assert train.step.resources.processes_per_node == 8
    assert prepare.step.resources.processes_per_node == 1
    assert train.step.environment == {"A": "1", "B": "2"}
    assert train.step.slurm.partition == "gpu"
    assert train.step.keys == {"data": {"shards": f"{tmp_path}/film/shards"}}


def test_a_preparation_by_an_array_is_two_jobs(tmp_path: Path) -> None:
    parts, whole, *_ = plan(tmp_path, CHAIN.format(folder=tmp_path / "film"))
    assert parts.step.command == (*whole.step.command, "--part", "{part}")
    assert (parts.step.array, whole.step.array) == (4, 0)
    assert parts.folder != whole.folder
    alone = plan(
        tmp_path, f"name: x\nfolder: {tmp_path}/x\ncommand: [prepare, a.csv, --output, b]\narray: 3\n"
    )
    assert [p.step.array for p in alone] == [3, 0]


def test_arguments_come_last(tmp_path: Path) -> None:
    text = CHAIN.format(folder=tmp_path / "film")
    *_, train, _ = plan(tmp_path, text, "steps.train.resources.nodes=7", "slurm.partition=cpu", "folder=/x/y")
    assert train.step.resources.nodes == 7
    assert train.step.slurm.partition == "cpu"
    assert train.step.keys == {"data": {"shards": "/x/y/shards"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("folder: x\ncommand: [train]", "name: no value"),
        ("name: x\ncommand: [train]", "folder: no value"),
        ("name: x\nfolder: y", "command or steps: neither is given"),
        ("name: x\nfolder: y\ncommand: [train]\nsteps: {a: {command: [train]}}", "both are given"),
        ('name: "a\\nb"\nfolder: y\ncommand: [train]', "printable characters on one line"),
        ("name: x\nfolder: y\ncommand: [train]\nresorces: {nodes: 2}", "did you mean 'resources'"),
        (
            "name: x\nfolder: y\ncommand: [train]\nresources: {nodes: 0}",
            "resources.nodes=0: must be a number of at least 1",
        ),
        ("name: x\nfolder: y\ncommand: [train]\nresources: {nodes: two}", "resources.nodes"),
        ("name: x\nfolder: y\ncommand: [train]\narray: 4", "has no {part} that tells its processes apart"),
        ("name: x\nfolder: y\nsteps: {a: {command: [train], aftr: [b]}}", "steps.a: unknown key 'aftr'"),
        ("name: x\nfolder: y\nsteps: {a: {command: [train], after: [b]}}", "steps.a.after: came ['b']"),
        ("name: x\nfolder: y\nsteps: {a: {command: []}}", "steps.a.command: empty"),
        ("name: x\nfolder: y\nsteps: {a: train}", "steps.a: came 'train'; a step holds keys"),
        ("name: x\nfolder: y\nsteps: {../a: {command: [train]}}", "a step's name is a folder's too"),
        ("name: x\nfolder: y\ncommand: [train]\nkeys: {a: '${nothing}'}", "nothing"),
        ("name: x\nfolder: y\ncommand: [train]\nresources: {memory_gib: .inf}", "memory_gib=inf: must be"),
        (
            "name: x\nfolder: y\nsteps: {p: {command: [prepare, a, --output, b], array: 2},"
            " p-parts: {command: [report, b]}}",
            "steps.p-parts: that name is taken",
        ),
        ("- a list", "holds a list"),
        ("name: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        plan(tmp_path, text)
    assert message in str(caught.value)
    assert "job.yaml" in str(caught.value) or "no value" in str(caught.value)
