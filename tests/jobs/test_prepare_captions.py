"""castbank prepare with a captioner: real clips, a real endpoint, and what then lies in the shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.shards import ShardSet
from jobs.__main__ import main
from tests.chat_lab import chat_lab, picture_of

pytestmark = pytest.mark.slow
CONFIG = Path(__file__).parent.parent.parent / "jobs" / "configs" / "prepare_demo.yaml"
CLIPS = ("cafe-01", "cafe-02")


def test_sentences_come_from_the_endpoint_and_a_second_run_asks_nothing(
    footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    head, *rows = (footage / "short.csv").read_text(encoding="utf-8-sig").splitlines(keepends=True)
    table = tmp_path / "some.csv"
    table.write_text(head + "".join(row for row in rows if row.startswith(CLIPS)), encoding="utf-8")
    monkeypatch.setenv("SEER_KEY", "secret-93ab")
    with chat_lab() as chat:
        words = [
            "prepare",
            str(table),
            "--output",
            str(tmp_path / "out"),
            "--config",
            str(CONFIG),
            f"clips={footage / 'clips'}",
            f"captions.url={chat.url}",
            "captions.model=seer",
            "captions.key=env:SEER_KEY",
            "captions.usd_per_million_in=1",
            "captions.usd_per_million_out=1",
            "run.num_workers=1",
        ]
        assert main(words) == 0
        asked = len(chat.requests)
        assert asked > 0 and set(chat.keys) == {"secret-93ab"}
        assert picture_of(chat.requests[0]["messages"][1]["content"][1]).shape[0] == 448
        assert main([*words, "captions.max_usd=0"]) == 0
        assert main([*words, "captions.max_usd=0", "references.guard_gap_s=0.9"]) == 0  # packed anew
        assert len(chat.requests) == asked
    shards = ShardSet.open(tmp_path / "out")
    for at in range(len(shards)):
        sample = shards.read(at)
        for member in sample.note.cast:
            assert member.sentence.startswith(f"<person-{member.slot}> is the ")
            assert f": a person in shirt {member.slot}, waving." in member.sentence
            assert member.sentence in sample.caption
        assert sample.note.captions.brief and "In picture" not in sample.note.captions.brief
        assert "In picture" in sample.caption
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert b"secret-93ab" not in written
    assert "samples" in capsys.readouterr().out
