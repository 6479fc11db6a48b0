"""What counts as a change: every knob is tried, so that a new one cannot be forgotten."""

from __future__ import annotations

import json
import os
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.config import CaptionConfig, IngestConfig, PrepareConfig, QualityConfig
from data_prep.ingest.storage import Storage
from data_prep.records import Captions, Clip, Decision
from data_prep.running.fingerprints import PackFiles, analysis_key, hash_files, inputs_sha256

CONFIG = PrepareConfig(manifest="m", output="o")
CLIP = Clip("a", "film", "/x/a.mp4", 0.0, 4.0, 24.0, 640, 360)
STORAGE = Storage(IngestConfig())
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
    "references.min_size_px",
    "link.threshold",
    "masks.region",
    "link.max_false_accept",
    "link.max_false_reject",
    "link.max_chance",
    "link.keep_characters",
    "pack.samples_per_shard",
    *(f"quality.{field.name}" for field in fields(QualityConfig) if field.name != "text_detector"),
    "pack.shard_bytes",
    "pack.validation",
    "captions.url",  # that somebody is asked; which model is tried below
}
NO_RESULT = {
    "link.overrides",  # what the file says counts, not where it lies
    "decode.timeout_s",
    "run.num_workers",
    "run.lock_wait_s",
    "run.max_attempts",
    "run.max_quarantined",
    "tracking.kind",
    "tracking.uri",
    "tracking.experiment",
    *(f"captions.{field.name}" for field in fields(CaptionConfig) if field.name != "url"),
    "ingest.endpoint",
    "ingest.max_attempts",
    "ingest.backoff_s",
    "ingest.timeout_s",
    "ingest.max_clip_bytes",  # what they leave out is among the lost rows
    "ingest.max_ratio",
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
    if name == "region":
        return replace(config, region="person")
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


def test_what_is_asked_counts_and_not_whom_or_at_what_price() -> None:
    asking = replace(CONFIG, captions=CaptionConfig(url="http://a/v1", model="seer"))
    elsewhere = replace(CONFIG, captions=CaptionConfig(url="http://b/v1", model="seer", max_usd=1.0))
    another = replace(CONFIG, captions=CaptionConfig(url="http://a/v1", model="another"))
    assert inputs(config=asking) == inputs(config=elsewhere) != inputs(config=another)


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    clip, memory = tmp_path / "a.mp4", tmp_path / "files.json"
    clip.write_bytes(b"one")
    first = hash_files(STORAGE, [str(clip)], memory, quiet)
    remembered = memory.read_text()
    assert hash_files(STORAGE, [str(clip)], memory, quiet) == first
    assert memory.read_text() == remembered
    clip.write_bytes(b"three")
    assert hash_files(STORAGE, [str(clip)], memory, quiet) != first
    memory.write_text("{damaged")
    clip.write_bytes(b"one")
    assert hash_files(STORAGE, [str(clip)], memory, quiet) == first


def test_what_several_remember_is_known_to_all(tmp_path: Path) -> None:
    clips = [tmp_path / f"{name}.mp4" for name in "ab"]
    for clip in clips:
        clip.write_bytes(clip.name.encode())
    hashes = [
        hash_files(STORAGE, [str(clip)], tmp_path / f"files-{k}-of-2.json", quiet)
        for k, clip in enumerate(clips, start=1)
    ]
    os.utime(clips[1], ns=(1, 1))  # remembered with another time, so read again
    before = clips[0].stat()
    clips[0].write_bytes(b"A.mp4")  # the same size and time: not read again
    os.utime(clips[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (
        hash_files(STORAGE, [str(clip) for clip in clips], tmp_path / "files.json", quiet)
        == hashes[0] | hashes[1]
    )
    for k in (1, 2):
        (tmp_path / f"files-{k}-of-2.json").unlink()
    assert (
        hash_files(STORAGE, [str(clip) for clip in clips], tmp_path / "files.json", quiet)
        == hashes[0] | hashes[1]
    )


def test_hashing_that_is_stopped_does_not_read_the_rest_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.running.fingerprints.SAVE_EVERY_S", 0.0)
    clips = [tmp_path / f"{k}.mp4" for k in range(500)]
    for clip in clips:
        clip.write_bytes(clip.name.encode())

    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hash_files(STORAGE, [str(clip) for clip in clips], tmp_path / "files.json", stop)
    assert len(json.loads((tmp_path / "files.json").read_text())) == 2
    hash_files(STORAGE, [str(clip) for clip in clips], tmp_path / "files.json", quiet)
    assert len(json.loads((tmp_path / "files.json").read_text())) == 500


def test_what_people_decided_counts() -> None:
    key = analysis_key(CLIP, "00", CONFIG, PACK)
    said = inputs_sha256({CLIP.id: key}, [CLIP], (), CONFIG, {"exclude": ["c1"]})
    assert said != inputs()
