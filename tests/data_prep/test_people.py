"""Who is whom, through the whole of preparation: ids that stay when clips are added, and what people decide."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep import ledger
from data_prep.flow import Prepared, prepare
from data_prep.packing.catalogue import known_characters
from data_prep.shards import ShardSet
from tests import painted_clips
from tests.painted_clips import config_for, hashes, make_corpus, paint, quiet, row, write_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module(face_home: Path) -> Iterator[None]:
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(painted_clips)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


def run(corpus: Path, output: Path, overrides: str = "") -> Prepared:
    config = config_for(corpus, output)
    return prepare(replace(config, link=replace(config.link, overrides=overrides)), quiet, analyse_one=paint)


def add_clips(corpus: Path, *people: list[int]) -> None:
    """More rows and files; their names come before those that are there, so that every default id would change."""
    with (corpus / "short.csv").open(newline="") as stream:
        rows: list[dict[str, object]] = [dict(r) for r in csv.DictReader(stream)]
    for at, cast in enumerate(people):
        (corpus / "clips" / f"aclip{at}.mp4").write_text(json.dumps({"people": cast}))
        rows.append(row(f"aclip{at}", f"source{at}", 200.0 + 10 * at))
    write_manifest(corpus / "short.csv", rows)


def casts(output: Path) -> dict[str, tuple[str, ...]]:
    return {row.key: row.cast for row in ShardSet.open(output).rows}


def test_ids_stay_when_clips_are_added(tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(corpus, output)
    before, samples = known_characters(output), casts(output)
    add_clips(corpus, [0, 1], [2, 3])
    run(corpus, output)
    after = known_characters(output)
    assert {track: after[track] for track in before} == before
    assert len(set(after.values())) == 4
    assert {key: casts(output)[key] for key in samples} == samples
    stored = json.loads((output / "calibration.json").read_text())
    assert stored["num_negative"] > 0 and stored["threshold"] == stored["base_threshold"] == 0.4


def test_what_people_decide_is_packed_and_can_be_taken_back(tmp_path: Path) -> None:
    corpus, output, people = make_corpus(tmp_path / "corpus"), tmp_path / "out", tmp_path / "people.yaml"
    plain = run(corpus, output)
    untouched, known = hashes(output), known_characters(output)
    anna, gone = known["clip0-t000"], known["clip1-t000"]
    people.write_text(f"rename: {{{anna}: anna}}\nexclude: [{gone}]\n")
    assert run(corpus, output, str(people)).worked
    assert not run(corpus, output, str(people)).worked
    found = casts(output)
    assert "anna" in {name for cast in found.values() for name in cast}
    assert not {anna, gone} & {name for cast in found.values() for name in cast}
    shown = {key for key in found if key.startswith(("clip1-", "clip2-", "clip5-"))}
    assert not shown, "windows that show who is excluded"
    fates = ledger.read(output / "ledger.parquet")
    assert {d.item[:5] for d in fates if d.kind == "window" and d.rule == "excluded_character"} == {
        "clip1",
        "clip2",
        "clip5",
    }
    listed = {c["id"]: c for c in json.loads((output / "characters.json").read_text())}
    assert listed[gone]["excluded"] is True and set(listed["anna"]["linked_as"].values()) == {anna}
    add_clips(corpus, [0])
    run(corpus, output, str(people))
    assert known_characters(output)["aclip0-t000"] == "anna"
    make_corpus(tmp_path / "corpus")
    assert run(corpus, output).facts == plain.facts
    assert hashes(output) == untouched
