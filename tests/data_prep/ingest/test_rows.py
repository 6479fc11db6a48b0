"""One row as text by column: values of any kind, times, and ids that become keys."""

from __future__ import annotations

import pytest

from data_prep.ingest.rows import REQUIRED, Row, key_of, seconds
from data_prep.records import InputError

VALUES = {
    "clip_id": "a.mp4",
    "url": "film",
    "fps": 24,
    "frame_width": 1920,
    "frame_height": 1080.0,
    "start_time": 0,
    "end_time": "0:05",
    "Brief Description": "Anna waves",
}


def test_numbers_and_texts_are_alike_and_captions_may_be_apart() -> None:
    row = Row.of(
        "x.jsonl, line 1", {**VALUES, "consent": None, "captions": {"theme": "sea", "lighting": "soft"}}
    )
    clip = row.clip(row.clip_id(), "/x/a.mp4")
    assert (clip.fps, clip.width_px, clip.height_px, clip.end_s) == (24.0, 1920, 1080, 5.0)
    assert (clip.captions.theme, clip.captions.lighting, clip.consent) == ("sea", "soft", "unknown")


def test_a_second_choice_counts_only_where_there_is_no_first() -> None:
    moved = {name: value for name, value in VALUES.items() if name != "Brief Description"}
    first = Row.of("x", {**VALUES, "text": "something else", "path": "/elsewhere"})
    second = Row.of("x", {**moved, "text": "Anna waves"})
    assert first.cells["Brief Description"] == second.cells["Brief Description"] == "Anna waves"
    assert first.clip_id() == "a.mp4"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fps": [24]}, "column 'fps': '[24]': a list; allowed: one text or number"),
        ({"Theme": {"a": 1}}, "a dict; allowed: one text or number"),
        ({"source": "b"}, "columns ['url', 'source'] all mean 'url'; keep one"),
        ({"captions": {"brief": "b"}}, "all mean 'Brief Description'"),
    ],
)
def test_a_value_that_is_no_text(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Row.of("x.jsonl, line 7", {**VALUES, **values})
    assert "x.jsonl, line 7" in str(caught.value) and message in str(caught.value)


def test_a_missing_column_is_named_with_the_nearest() -> None:
    renamed = {{"start_time": "strat_time"}.get(name, name): value for name, value in VALUES.items()}
    with pytest.raises(InputError, match=r"'start_time' is missing; did you mean 'strat_time'"):
        Row.of("x", renamed)
    assert Row.of("x", {}, required=()).cells == {}
    assert tuple(REQUIRED) == tuple(VALUES)


def test_a_sidecar_may_say_little_and_then_the_clip_is_a_source_of_its_own() -> None:
    silent = Row.of("x", {"clip_id": "a/b.mov", "url": "film"}, required=())
    clip = silent.clip_that_may_say_little("a/b.mov", "/x/a/b.mov")
    assert (clip.source_id, clip.start_s, clip.end_s, clip.fps) == ("a/b.mov", 0.0, 0.0, 0.0)
    placed = Row.of("x", {"clip_id": "b.mov", "url": "film", "start": 2, "end": 4.5}, required=())
    clip = placed.clip_that_may_say_little("b.mov", "/x/b.mov")
    assert (clip.source_id, clip.start_s, clip.end_s) == ("film", 2.0, 4.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("12.5", 12.5), ("01:02", 62), ("1:00:00.25", 3600.25), (" 3 ", 3)],
)
def test_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "nan", "a:b"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(ValueError):
        seconds(text)


def test_keys_are_plain_and_stay_different() -> None:
    assert key_of("abc_1-x.mp4") == "abc_1-x"
    keys = {key_of(name) for name in ("a/b.mp4", "a.b.mp4", "a_b.mp4", "A b.MP4", "ä.mp4")}
    assert len(keys) == 5 and not any(set(key) & set("./ ") for key in keys)
    long = {key_of("x" * 200 + end + ".mp4") for end in "ab"}
    assert len(long) == 2 and all(len(key) == 64 for key in long)
