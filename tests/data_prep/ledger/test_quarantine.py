"""What failed is remembered with every field, and chosen for another try by id, error class, ledger, or all."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep import ledger
from data_prep.ledger.quarantine import Quarantine, chosen
from data_prep.records import Decision, InputError


def failed(clip_id: str, error_class: str) -> Decision:
    return Decision(
        clip_id,
        "clip",
        "quarantined",
        "analyse",
        "failed",
        "2",
        "2 attempts",
        error_class,
        2,
        "ü\n",
        "castbank",
    )


WHY = {
    "a-11": failed("a", "TimeoutError"),
    "b-22": failed("b", "WorkerCrashedError"),
    "c-33": failed("c", "TimeoutError"),
}
CLIPS = {"a", "b", "c", "d"}


def remembered(folder: Path) -> Quarantine:
    quarantine = Quarantine(folder)
    for name, why in WHY.items():
        quarantine.add(name, why)
    return quarantine


def test_it_is_known_again_under_its_name_and_no_other(tmp_path: Path) -> None:
    remembered(tmp_path)
    assert Quarantine(tmp_path).known(["a-11", "b-99", "d-44"]) == {"a-11": WHY["a-11"]}
    assert Quarantine(tmp_path / "none").known(["a-11"]) == {}


def test_forgotten_it_is_tried_again(tmp_path: Path) -> None:
    quarantine = remembered(tmp_path)
    quarantine.forget(["a-11", "d-44"])
    assert quarantine.known(list(WHY)).keys() == {"b-22", "c-33"}
    quarantine.keep_only({"b-22"})
    assert quarantine.known(list(WHY)).keys() == {"b-22"}
    quarantine.keep_only(set())
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_worth_nothing(tmp_path: Path) -> None:
    quarantine = remembered(tmp_path)
    (tmp_path / "failed" / "a-11.json").write_text("{")
    (tmp_path / "failed" / "c-33.json").write_text('{"of": "another version"}')
    assert quarantine.known(list(WHY)).keys() == {"b-22"}


@pytest.mark.parametrize(
    ("replay", "names"),
    [
        ("all", {"a-11", "b-22", "c-33"}),
        ("b", {"b-22"}),
        ("a, c", {"a-11", "c-33"}),
        ("TimeoutError", {"a-11", "c-33"}),
        ("d", set()),  # healed meanwhile, or forgotten by a run that was then killed
    ],
)
def test_what_is_chosen(replay: str, names: set[str]) -> None:
    assert set(chosen(replay, WHY, CLIPS)) == names


def test_a_ledger_stands_for_what_is_quarantined_in_it(tmp_path: Path) -> None:
    ledger.write(tmp_path / "ledger.parquet", [WHY["c-33"], Decision("a", "clip", "kept", "analyse")])
    assert chosen(str(tmp_path / "ledger.parquet"), WHY, CLIPS) == ["c-33"]


@pytest.mark.parametrize(
    ("replay", "message"),
    [
        (
            "e",
            r"--replay: came 'e', which is no.*quarantined are a, b, c \(by error class: TimeoutError 2, W",
        ),
        ("a,MemoryError", "--replay: came 'MemoryError'"),
        (",", "--replay: came ''"),
        ("none.parquet", "--replay 'none.parquet': no ledger can be read there"),
    ],
)
def test_what_is_none_is_named(
    replay: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        chosen(replay, WHY, CLIPS)
    with pytest.raises(InputError, match="no clip is quarantined here"):
        chosen("e", {}, CLIPS)
