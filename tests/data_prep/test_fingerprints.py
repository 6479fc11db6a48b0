"""What counts as a change: every knob is tried, so that a new one cannot be forgotten."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.config import PrepareConfig
from data_prep.fingerprints import PackFiles, analysis_key, hash_files, inputs_sha256
from data_prep.records import Captions, Clip, Decision

CONFIG = PrepareConfig(manifest="m", output="o")
CLIP = Clip("a", "film", "/x/a.mp4", 0.0, 4.0, 24.0, 640, 360)
PACK = PackFiles("embedded", {"det.onnx": "1"})
AFTER_ANALYSIS = {
    "windows.max_cast",
    "windows.min_visible",
    "windows.min_face_px",
    "references.min_count",
    "references.max_count",
    "references.guard_gap_s",
    "references.min_similarity",
    "references.max_similarity",
    "link.threshold",
    "pack.samples_per_shard",
}
NO_RESULT = {
    "decode.timeout_s",
    "decode.max_chunk_bytes",
    "run.num_workers",
    "run.max_attempts",
    "run.max_quarantined",
    "manifest",
    "clips",
    "output",
}


def quiet(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


def changed(config: Any, key: str) -> Any:
    """The configuration with one knob set to another value of its type."""
    name, _, rest = key.partition(".")
    value = getattr(config, name)
    if rest:
        return replace(config, **{name: changed(value, rest)})
    if isinstance(value, str):
        return replace(config, **{name: value + "x"})
    if name == "min_count":
        return replace(config, **{name: value + 1})
    return replace(config, **{name: value + 32 if isinstance(value, int) else value / 2 or 0.5})


def knobs(config: Any, prefix: str = "") -> list[str]:
    found = []
    for field in fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name
        found += knobs(value, name + ".") if is_dataclass(value) else [name]
    return found


def inputs(clip: Clip = CLIP, config: PrepareConfig = CONFIG, ingest: tuple[Decision, ...] = ()) -> str:
    return inputs_sha256({clip.id: analysis_key(clip, "00", config, PACK)}, [clip], ingest, config)


@pytest.mark.parametrize("key", knobs(CONFIG))
def test_each_knob_is_new_analysis_new_shards_or_neither(key: str) -> None:
    other = changed(CONFIG, key)
    same_analysis = analysis_key(CLIP, "00", other, PACK) == analysis_key(CLIP, "00", CONFIG, PACK)
    same_shards = inputs(config=other) == inputs()
    assert same_analysis == (key in AFTER_ANALYSIS | NO_RESULT)
    assert same_shards == (key in NO_RESULT)


def test_words_change_the_shards_and_not_the_analysis() -> None:
    key = analysis_key(CLIP, "00", CONFIG, PACK)
    for words in (
        {"captions": Captions(brief="new")},
        {"consent": "granted"},
        {"licence": "x"},
        {"source_id": "y"},
    ):
        other = replace(CLIP, **words)  # type: ignore[arg-type]
        assert analysis_key(other, "00", CONFIG, PACK) == key
        assert inputs(other) != inputs()


def test_contents_count_and_places_do_not() -> None:
    key = analysis_key(CLIP, "00", CONFIG, PACK)
    assert analysis_key(replace(CLIP, path="/y/b.mp4"), "00", CONFIG, PACK) == key
    assert inputs(replace(CLIP, path="/y/b.mp4")) == inputs()
    assert analysis_key(CLIP, "01", CONFIG, PACK) != key
    assert analysis_key(replace(CLIP, end_s=5.0), "00", CONFIG, PACK) != key
    assert analysis_key(CLIP, "00", CONFIG, PackFiles("embedded", {"det.onnx": "2"})) != key
    assert inputs(ingest=(Decision("z", "clip", "dropped", "ingest", "file_missing"),)) != inputs()


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"one")
    first = hash_files([clip], tmp_path, quiet)
    remembered = (tmp_path / "files.json").read_text()
    assert hash_files([clip], tmp_path, quiet) == first
    assert (tmp_path / "files.json").read_text() == remembered
    clip.write_bytes(b"three")
    assert hash_files([clip], tmp_path, quiet) != first
    (tmp_path / "files.json").write_text("{damaged")
    clip.write_bytes(b"one")
    assert hash_files([clip], tmp_path, quiet) == first
