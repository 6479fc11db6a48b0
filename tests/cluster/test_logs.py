"""Following files that grow."""

from __future__ import annotations

from pathlib import Path

from cluster.logs import follow, tail


def test_lines_come_whole_whenever_they_are_written(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    turns = iter(
        [
            lambda: first.write_bytes(b"one\ntw"),
            lambda: first.write_bytes(b"one\ntwo\n\xc3"),
            lambda: (first.write_bytes(b"one\ntwo\n\xc3\xa9"), second.write_text("late\nrest")),
        ]
    )

    def ended() -> bool:
        turn = next(turns, None)
        if turn is not None:
            turn()
        return turn is None

    assert list(follow([first, second], ended)) == ["one", "two", "late", "é", "rest"]


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a\nb\nc\n")
    assert tail(tmp_path / "log", 2) == ["b", "c"]
    assert tail(tmp_path / "none", 2) == []
