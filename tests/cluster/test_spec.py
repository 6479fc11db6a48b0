"""A job's spec survives its way through JSON, whatever it holds."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.spec import JobError, JobSpec, KubernetesOptions, Resources, Retry, from_json, to_json

HOSTILE = "; rm -rf / $(x) `y` \"'\\ \n\t\0 é漢 {part} #%&*()[]"


def hostile_spec(seed: int) -> JobSpec:
    """A spec with names and values that no shell or parser should take for anything else."""
    draw = random.Random(seed)

    def text() -> str:
        return "".join(draw.choice(HOSTILE) for _ in range(draw.randint(1, 12))).strip() or "x"

    return JobSpec(
        id=f"job-{seed:04x}",
        name=text(),
        place=draw.choice(("local", "slurm", "ray", "kubernetes")),
        command=("python3", "-P", *(text() for _ in range(draw.randint(0, 4)))),
        folder=Path("/shared") / text().replace("/", "_").replace("\0", ""),
        workdir=Path("/"),
        code=draw.choice((None, Path("/shared/code"))),
        environment={"NAME": text()},
        secrets={"TOKEN": "file:/x"},
        resources=Resources(draw.randint(1, 4), draw.randint(1, 8), memory_gib=draw.random()),
        retry=Retry(on_exit_codes=tuple(draw.sample(range(1, 99), draw.randint(0, 3)))),
        ranks=draw.random() < 0.5,
        after=(Path("/a b"),) * draw.randint(0, 2),
        mounts=(text(),),
        kubernetes=KubernetesOptions(node_selector={text(): text()}),
    )


@pytest.mark.parametrize("seed", range(100))
def test_a_spec_is_read_back_as_it_was(seed: int) -> None:
    spec = hostile_spec(seed)
    assert from_json(to_json(spec)) == spec


def test_the_number_of_processes() -> None:
    spec = hostile_spec(0)
    ranked = replace(spec, ranks=True, array=0, resources=Resources(nodes=3, processes_per_node=4))
    assert ranked.world == 12
    assert replace(ranked, ranks=False).world == 1
    assert replace(ranked, ranks=False, array=5).world == 5


def test_what_a_newer_version_wrote_is_read() -> None:
    spec = hostile_spec(1)
    told = json.loads(to_json(spec))
    told |= {"mood": "good", "retry": told["retry"] | {"max_luck": 3}}
    assert from_json(json.dumps(told)) == spec


@pytest.mark.parametrize("text", ['{"id": "x"}', "[]", "{", '{"resources": 3}', '{"after": null}', ""])
def test_what_cannot_be_read_is_said_to_be_another_versions(text: str) -> None:
    with pytest.raises(JobError, match=r"spec\.json was written by another version"):
        from_json(text)
