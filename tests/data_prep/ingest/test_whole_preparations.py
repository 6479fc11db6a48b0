"""Whole preparations whose clips come from elsewhere: S3 that fails every third call, zips, tars. Same bytes.

The clips are painted (tests/painted_clips.py); Ray's workers fetch them from a real S3 server.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep import ledger
from data_prep.config import IngestConfig, PrepareConfig
from data_prep.flow import prepare
from tests import painted_clips
from tests.painted_clips import config_for, hashes, make_corpus, paint, quiet
from tests.s3_lab import S3Lab

pytestmark = pytest.mark.slow
LIMITS = IngestConfig(backoff_s=0.01)


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module(face_home: Path, s3_server: S3Lab) -> Iterator[None]:
    """One Ray for all, started where the environment leads to the server."""
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(painted_clips)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("stores") / "corpus")


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the clips give as plain files."""
    output = tmp_path_factory.mktemp("expected") / "out"
    prepare(config_for(corpus, output), quiet, analyse_one=paint)
    return hashes(output)


def prepared(config: PrepareConfig, manifest: str, clips: str) -> dict[str, str]:
    config = replace(config, manifest=manifest, clips=clips, ingest=LIMITS)
    assert prepare(config, quiet, analyse_one=paint).worked
    assert not prepare(config, quiet, analyse_one=paint).worked
    assert not list((Path(config.output) / ".work").glob(".aside-*"))
    return hashes(Path(config.output))


def without_origins(found: dict[str, str]) -> dict[str, str]:
    """Manifest and lineage say what the shards were made from, of S3 by its ETags; all else is the clips' alone."""
    return {name: value for name, value in found.items() if name not in ("manifest.json", "lineage.jsonl")}


@pytest.mark.parametrize("every", [0, 3])
def test_s3_calm_or_failing_every_third_call(
    every: int, corpus: Path, expected: dict[str, str], tmp_path: Path, s3: S3Lab
) -> None:
    place = s3.put(corpus, "corpus")
    s3.faults.every = every
    found = prepared(config_for(corpus, tmp_path / "out"), f"{place}/short.csv", f"{place}/clips")
    assert without_origins(found) == without_origins(expected)
    assert len(expected) > 8
    assert (s3.faults.num_failed > 5) == bool(every)
    for name in ("manifest.json", "lineage.jsonl"):
        shutil.copy(tmp_path / "out" / name, tmp_path.parent / f"{every}-{name}")


def test_both_of_those_even_say_the_same_of_where_they_came_from(tmp_path: Path) -> None:
    for name in ("manifest.json", "lineage.jsonl"):
        calm, failing = (tmp_path.parent / f"{every}-{name}" for every in (0, 3))
        assert calm.read_text() == failing.read_text()


def test_zips_as_ultravideo_has_them(corpus: Path, expected: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "zips").mkdir()
    for part in (1, 2):
        with zipfile.ZipFile(tmp_path / "zips" / f"clips_short_{part}.zip", "w") as packed:
            for path in sorted((corpus / "clips").iterdir())[part - 1 :: 2]:
                packed.write(path, f"clips_short_{part}/{path.name}")
    config = config_for(corpus, tmp_path / "out")
    assert prepared(config, str(corpus / "short.csv"), str(tmp_path / "zips")) == expected


def test_an_object_that_vanishes_and_a_damaged_member_cost_one_clip_each(
    corpus: Path, tmp_path: Path, s3: S3Lab
) -> None:
    place = s3.put(corpus, "vanishing")
    s3.remove(f"{place}/clips/clip1.mp4")
    with zipfile.ZipFile(tmp_path / "part.zip", "w") as packed:
        packed.write(corpus / "clips" / "clip2.mp4", "in/clip2.mp4")
    content = (tmp_path / "part.zip").read_bytes()
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "part.zip").write_bytes(content.replace(b"people", b"PEOPLE", 1))
    s3.put(tmp_path / "up", "vanishing/clips")
    s3.remove(f"{place}/clips/clip2.mp4")
    prepared(config_for(corpus, tmp_path / "out"), f"{place}/short.csv", f"{place}/clips")
    lost = {d.item: d.rule for d in ledger.read(tmp_path / "out" / "ledger.parquet") if d.fate == "dropped"}
    assert lost["clip1"] == "file_missing" and lost["clip2"] == "unreadable"


def test_a_webdataset_tree_gives_what_a_folder_with_sidecars_gives(
    corpus: Path, tmp_path: Path, s3: S3Lab
) -> None:
    folder = tmp_path / "shard"
    folder.mkdir()
    (tmp_path / "tree").mkdir()
    for at, path in enumerate(sorted((corpus / "clips").iterdir())):
        shutil.copy(path, folder)
        facts = {"url": f"source{at % 3}", "start_time": at * 10, "end_time": at * 10 + 4, "fps": 24}
        (folder / f"{path.stem}.json").write_text(json.dumps(facts))
        (folder / f"{path.stem}.txt").write_text("People talk.")
    with tarfile.open(tmp_path / "tree" / "shard.tar", "w") as packed:
        for path in sorted(folder.iterdir()):
            packed.add(path, path.name)
    (tmp_path / "videos").mkdir()
    folder.rename(tmp_path / "videos" / "shard")
    config = config_for(corpus, tmp_path / "one")
    from_files = prepared(config, str(tmp_path / "videos"), "")
    s3.faults.every = 3
    tree = s3.put(tmp_path / "tree", "tree")
    from_tars = prepared(replace(config, output=str(tmp_path / "two")), tree, "")
    assert without_origins(from_tars) == without_origins(from_files)
    assert sum(name.endswith(".tar") for name in from_files) >= 2
