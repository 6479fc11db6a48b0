"""Secrets are references; values never show."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.secret_values import check, secret_values, split
from cluster.spec import JobError


def test_values_are_read_where_the_job_runs(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("value\n")
    found = secret_values(
        {"A": f"file:{tmp_path / 'key'}", "B": "env:OTHER", "C": "kubernetes:s/k"}, {"OTHER": "x"}
    )
    assert found == {"A": "value", "B": "x"}


@pytest.mark.parametrize("value", ["hunter2", "s3://key", "vault:x"])
def test_a_value_instead_of_a_reference_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(JobError, match=r"secrets\.A: what is given is no reference") as caught:
        split("A", value)
    assert value not in str(caught.value)


def test_what_cannot_be_resolved_says_so() -> None:
    with pytest.raises(JobError, match=r"secrets\.A: env:… cannot be resolved on ray; allowed are file:…"):
        check({"A": "env:X"}, ("file",), "ray")
    with pytest.raises(JobError, match="X is not set where the job runs"):
        secret_values({"A": "env:X"}, {})
