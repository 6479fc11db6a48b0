"""What the doctor finds in a real Ray cluster of two nodes, through its job server alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.checks import ray_cluster
from cluster.checks.finding import Finding
from cluster.checks.plan import Plan
from cluster.checks.trial import trial
from cluster.spec import RayOptions
from tests.cluster.ray_lab import RayLab, free_port, ray_lab, until


def asked(shared: Path, plan: Plan, address: str) -> list[Finding]:
    with trial(shared) as tried:
        return list(ray_cluster.check(plan, RayOptions(address=address), tried))


def test_addresses_where_no_job_server_is(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    for address, words in (
        (nowhere, "refused"),
        ("ray://head:10001", "begins with http://"),
        ("auto", "begins with"),
    ):
        (finding,) = asked(tmp_path, Plan(), address)
        assert finding.state == "broken" and words in finding.seen
        assert "ray.address=http://HEAD:8265" in finding.remedy


@pytest.fixture(scope="module")
def lab() -> Iterator[RayLab]:
    with ray_lab() as made:
        made.add_node(1)
        made.wait(2)
        yield made


@pytest.mark.slow
def test_a_ray_that_is_well_and_the_same_without_one_node(lab: RayLab, tmp_path: Path) -> None:
    cluster, first, second, link = asked(tmp_path, Plan(), lab.address)
    assert cluster.name == "ray" and ": 2 nodes, 3 CPUs, 0 GPUs, " in cluster.seen
    assert [finding.state for finding in (cluster, first, second, link)] == ["ok"] * 4
    assert "locks and renames work" in first.seen and first.name.startswith("node ")
    assert "gloo" in link.seen
    lab.nodes[1].kill_raylet()
    until(lambda: len(asked(tmp_path, Plan(), lab.address)) == 3, "one node less", 90)
    cluster, alone, dead = asked(tmp_path, Plan(), lab.address)
    assert ": 1 nodes, 2 CPUs, " in cluster.seen
    assert alone.state == "ok"
    assert (dead.state, dead.seen) == ("warning", "Ray counts it as dead")


@pytest.mark.slow
def test_an_interpreter_that_the_cluster_has_not(lab: RayLab, tmp_path: Path) -> None:
    (finding,) = asked(tmp_path, Plan(python="/none/python"), lab.address)
    assert finding.state == "broken" and "one of ours ended with 127" in finding.seen
    assert "--python" in finding.remedy


@pytest.mark.slow
def test_a_folder_that_the_cluster_does_not_share(lab: RayLab, tmp_path: Path) -> None:
    with trial(tmp_path) as tried:
        (tried.folder / "token").write_text("of another machine")
        found = list(ray_cluster.check(Plan(1), RayOptions(address=lab.address), tried))
    (finding,) = [
        finding for finding in found if finding.name.startswith("node ") and finding.state == "broken"
    ]
    assert finding.seen == "the folder given here is not the same there: another folder is there"
