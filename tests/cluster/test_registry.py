"""Ids that every scheduler takes, and finding a job by what a person types."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.registry import Registry
from cluster.spec import JobError, JobSpec


def test_ids_are_plain_whatever_the_name(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for name in ("; rm -rf /", "Ünïcode ♥", "x" * 300, "-a-", "A B"):
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", registry.new_id(name))
        assert len(registry.new_id(name)) <= 45


def test_a_job_is_found_by_a_beginning_of_its_id_or_its_folder(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "jobs")
    registry.add("first-1111", tmp_path / "a")
    registry.add("first-2222", tmp_path / "b")
    registry.add("first-3333", tmp_path / "deleted")
    for job_id, name in (("first-1111", "a"), ("first-2222", "b")):
        spec = JobSpec(job_id, "first", "local", ("x",), tmp_path / name, tmp_path)
        JobFolder(tmp_path / name).write_spec(spec)
    (tmp_path / "c").mkdir()
    assert registry.find("first-1111") == tmp_path / "a"
    assert registry.find("first-2") == tmp_path / "b"
    assert registry.find(str(tmp_path / "c")) == tmp_path / "c"
    with pytest.raises(JobError, match=r"'first' could be first-(1111, first-2222|2222, first-1111);"):
        registry.find("first")
    with pytest.raises(JobError, match="'other': no such id or folder; castbank jobs lists"):
        registry.find("other")
