"""The whole flow on Ray: quarantine, no work twice, byte-identical shards, kills, changed inputs, a full disk.

The clips are painted (tests/painted_clips.py), so that each of these is seconds; real footage through the real
analysis is in tests/jobs/test_prepare.py.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import ledger
from data_prep.config import PackConfig
from data_prep.flow import Again, Prepared, prepare
from data_prep.packing.catalogue import known_characters
from data_prep.records import InputError
from data_prep.running.ray_session import RaySession
from data_prep.shards import ShardSet
from tests import painted_clips
from tests.painted_clips import (
    CAST,
    DIM,
    analyses,
    config_for,
    hashes,
    make_corpus,
    paint,
    quiet,
    row,
    start,
    write_manifest,
)
from tests.waiting import until


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module(face_home: Path) -> Iterator[None]:
    """One Ray for all calls in this process; the killed processes have their own."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(painted_clips)
    session = RaySession(num_cpus=2)
    session.start()
    yield
    session.end()


def run(corpus: Path, output: Path, **knobs: Any) -> Prepared:
    how = {name: knobs.pop(name) for name in ("replay", "repack") if name in knobs}
    return prepare(config_for(corpus, output, **knobs), quiet, analyse_one=paint, again=Again(**how))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, ray_of_the_module: None) -> tuple[Path, Path]:
    """The corpus, and the output of one undisturbed run."""
    folder = tmp_path_factory.mktemp("flow")
    corpus = make_corpus(folder / "corpus")
    run(corpus, folder / "out")
    return corpus, folder / "out"


def test_everything_is_found_and_counted(expected: tuple[Path, Path]) -> None:
    shards = ShardSet.open(expected[1])
    facts = shards.manifest.facts
    assert (facts["num_clips"], facts["num_clips_kept"], facts["num_tracks"]) == (7, 6, 9)
    assert facts["num_characters"] == 3
    assert facts["lost_by_rule"] == {"clip: no_face": 1}
    assert len(shards) == facts["num_samples"] == 12
    assert [row.key for row in shards.rows] == sorted(row.key for row in shards.rows)
    for at in range(len(shards)):
        note = shards.read(at).note
        people = CAST[int(note.clip_id[-1])]
        assert len({m.character_id for m in note.cast}) == len(people)
    fates = ledger.read(expected[1] / "ledger.parquet")
    assert sum(d.kind == "track" and d.fate == "kept" for d in fates) == 9
    stored = np.load(expected[1] / "faces" / "tracks.npz", allow_pickle=False)
    assert stored["embeddings"].shape == (9, DIM)
    assert len(json.loads((expected[1] / "characters.json").read_text())) == 3


def test_a_second_run_does_nothing(expected: tuple[Path, Path]) -> None:
    corpus, output = expected
    before = written_at(output)
    assert not run(corpus, output).worked
    assert written_at(output) == before


def written_at(output: Path) -> dict[str, int]:
    """When each public file and each analysis was written."""
    return {name: (output / name).stat().st_mtime_ns for name in hashes(output)} | analyses(output)


def test_from_scratch_elsewhere_the_bytes_are_the_same(expected: tuple[Path, Path], tmp_path: Path) -> None:
    run(make_corpus(tmp_path / "moved"), tmp_path / "out")
    assert hashes(tmp_path / "out") == hashes(expected[1])


def test_a_missing_shard_is_made_again_without_analysis(expected: tuple[Path, Path], tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus")
    run(corpus, tmp_path / "out")
    before = analyses(tmp_path / "out")
    (tmp_path / "out" / "shard-000001.tar").unlink()
    assert run(corpus, tmp_path / "out").worked
    assert hashes(tmp_path / "out") == hashes(expected[1])
    assert analyses(tmp_path / "out") == before


def test_only_what_changed_is_analysed_again(expected: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(corpus, output)
    before = analyses(output)
    with (corpus / "short.csv").open(newline="") as stream:
        rows: list[dict[str, object]] = [dict(r) for r in csv.DictReader(stream)]
    rows[0]["Brief Description"] = "Somebody sings."
    (corpus / "clips" / "clip1.mp4").write_text(json.dumps({"people": [1], "note": "edited"}))
    (corpus / "clips" / "clip9.mp4").write_text(json.dumps({"people": [0, 1]}))
    rows = [r for r in rows if r["clip_id"] != "clip5.mp4"] + [row("clip9", "source1", 90.0)]
    write_manifest(corpus / "short.csv", rows)
    run(corpus, output)
    after = analyses(output)
    assert {name for name in after if after[name] != before.get(name)} == {"clip1", "clip9"}
    assert "clip5" not in after
    shards = ShardSet.open(output)
    assert {r.clip_id for r in shards.rows} == {"clip0", "clip1", "clip2", "clip3", "clip4", "clip9"}
    assert "Somebody sings." in shards.read(0).caption
    assert {p.name for p in output.glob("*.tar")} == {s.name for s in shards.manifest.shards}
    run(corpus, output, repack=True)
    run(corpus, tmp_path / "fresh")
    assert hashes(tmp_path / "fresh") == hashes(output)


def test_added_clips_go_into_new_shards_and_change_nothing_that_stands(tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(corpus, output)
    stood = {path.name: path.stat() for path in output.glob("*.tar")}
    rows, lines = ShardSet.open(output).rows, (output / "lineage.jsonl").read_text().splitlines()
    ids = known_characters(output)
    add_clips(
        corpus, {"clip00": [0], "clip9": [1, 2]}
    )  # one sorts between old ones; both bring new references
    done = run(corpus, output)
    assert (done.num_written, done.num_kept) == (2, 4)
    assert {name: (output / name).stat() for name in stood} == stood
    after = ShardSet.open(output)
    assert after.rows[:12] == rows
    assert {row.shard for row in after.rows[12:]} == {"shard-000004.tar", "shard-000005.tar"}
    assert (output / "lineage.jsonl").read_text().splitlines()[:12] == lines
    assert ids.items() <= known_characters(output).items()
    assert [after.read(at).note.key for at in range(16)] == [row.key for row in after.rows]
    run(corpus, tmp_path / "fresh")
    assert hashes(tmp_path / "fresh")["shard-000000.tar"] != hashes(output)["shard-000000.tar"]


def test_a_shard_is_written_anew_when_a_face_it_shows_is_taken_away(tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(corpus, output)
    shards = ShardSet.open(output)
    shown = {
        row.shard: {r.clip_id for slot in shards.read(at).note.references for r in slot}
        for at, row in enumerate(shards.rows)
    }
    with (corpus / "short.csv").open(newline="") as stream:
        rows: list[dict[str, object]] = [dict(r) for r in csv.DictReader(stream)]
    write_manifest(corpus / "short.csv", [r for r in rows if r["clip_id"] != "clip5.mp4"])
    before = hashes(output)
    run(corpus, output)
    after = ShardSet.open(output)
    for at in range(len(after)):
        assert "clip5" not in {r.clip_id for slot in after.read(at).note.references for r in slot}
    kept = [name for name in shown if hashes(output).get(name) == before[name]]
    assert all("clip5" not in shown[name] for name in kept)


def test_validation_has_its_own_shards_and_nobody_is_on_both_sides(tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "corpus"), tmp_path / "out"
    add_clips(corpus, {"other1": [3], "other2": [3, 4], "third": [5], "third2": [5]}, "elsewhere")
    config = replace(config_for(corpus, output), pack=PackConfig(samples_per_shard=3, validation=0.2))
    prepare(config, quiet, analyse_one=paint)
    train, apart = ShardSet.open(output), ShardSet.open(output, "validation")
    assert {row.shard.partition("-")[0] for row in train.rows} == {"shard"}
    assert {row.shard.partition("-")[0] for row in apart.rows} == {"validation"}
    assert len(train) + len(apart) == len(ShardSet.open(output, "all")) == train.manifest.num_samples
    people = [{name for row in side.rows for name in row.cast} for side in (train, apart)]
    shown = [
        {r.source_id for row in range(len(side)) for s in side.read(row).note.references for r in s}
        | {row.source_id for row in side.rows}
        for side in (train, apart)
    ]
    assert people[0] and people[1] and not people[0] & people[1]
    assert not shown[0] & shown[1]
    assert train.manifest.facts["num_samples_validation"] == len(apart)
    stood = {path.name: path.stat() for path in output.glob("*.tar")}
    add_clips(corpus, {"late": [3]}, "elsewhere")
    prepare(config, quiet, analyse_one=paint)
    assert {name: (output / name).stat() for name in stood} == stood


def add_clips(corpus: Path, clips: dict[str, list[int]], source: str = "source1") -> None:
    """More rows: of each clip who is in it; clips named alike are of sources of their own."""
    with (corpus / "short.csv").open(newline="") as stream:
        rows: list[dict[str, object]] = [dict(r) for r in csv.DictReader(stream)]
    for at, (name, people) in enumerate(clips.items()):
        (corpus / "clips" / f"{name}.mp4").write_text(json.dumps({"people": people}))
        own = source if source == "source1" else f"{source}-{name}"
        rows.append(row(name, own, 90.0 + 10 * at))
    write_manifest(corpus / "short.csv", rows)


def test_fewer_samples_leave_no_old_shard_behind(expected: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "corpus"), tmp_path / "out"
    run(corpus, output)
    prepare(
        replace(config_for(corpus, output), pack=PackConfig(samples_per_shard=100)), quiet, analyse_one=paint
    )
    assert [p.name for p in output.glob("*.tar")] == ["shard-000000.tar"]


def test_a_clip_that_kills_its_worker_is_quarantined_and_can_be_retried(
    expected: tuple[Path, Path], tmp_path: Path
) -> None:
    healed = tmp_path / "healed"
    corpus, output = make_corpus(tmp_path / "corpus", clip3={"abort": str(healed)}), tmp_path / "out"
    prepared = run(corpus, output, max_quarantined=0.2)
    assert prepared.facts["num_quarantined"] == 1
    fate = next(d for d in ledger.read(output / "ledger.parquet") if d.fate == "quarantined")
    assert (fate.item, fate.stage, fate.attempts) == ("clip3", "analyse", 2)
    assert fate.error_class == "WorkerCrashedError"
    assert "Aborted" in fate.detail
    assert fate.replay.endswith("--replay clip3")
    assert "clip3" not in {r.clip_id for r in ShardSet.open(output).rows}
    assert not run(corpus, output, max_quarantined=0.2).worked
    healed.touch()
    again = run(corpus, output, max_quarantined=0.2, replay="clip3")
    assert (again.worked, again.facts["num_quarantined"]) == (True, 0)
    assert hashes(output)["shard-000000.tar"] == hashes(expected[1])["shard-000000.tar"]


def test_too_many_quarantined_clips_stop_the_run_until_they_are_replayed(
    expected: tuple[Path, Path], tmp_path: Path
) -> None:
    healed, log, output = tmp_path / "healed", tmp_path / "log", tmp_path / "out"
    log.mkdir()
    corpus = make_corpus(tmp_path / "corpus", clip3={"abort": str(healed), "log": str(log)})
    for _ in range(2):  # the second time it is known to fail, and not tried
        with pytest.raises(
            InputError,
            match=r"run\.max_quarantined: 1 of 7 clips tried failed, allowed are 0\.7.*WorkerCrashedError 1; the "
            r"first is clip3: WorkerCrashedError after 2 attempts",
        ):
            run(corpus, output, max_quarantined=0.1)
        assert len(list(log.iterdir())) == 2
    fate = ledger.read(output / "stopped" / "ledger.parquet")[0]
    assert (fate.item, fate.error_class, fate.attempts) == ("clip3", "WorkerCrashedError", 2)
    assert fate.replay.endswith(f"--config {output}/stopped/config.yaml --replay clip3")
    assert "Aborted" in (output / "stopped" / "ledger.html").read_text()
    assert not list(output.glob("*.tar"))
    assert not (output / "manifest.json").exists()
    healed.touch()
    again = run(corpus, output, max_quarantined=0.1, replay="WorkerCrashedError")
    assert [stage.name for stage in again.stages] == ["fingerprint", "analyse", "link", "select", "pack"]
    assert [stage.num_items for stage in again.stages] == [7, 1, 1, 7, 4]
    assert hashes(output).keys() == hashes(expected[1]).keys()
    assert hashes(output)["ledger.parquet"] == hashes(expected[1])["ledger.parquet"]
    assert not (output / "stopped").exists()


def test_what_is_not_quarantined_cannot_be_replayed(expected: tuple[Path, Path]) -> None:
    corpus, output = expected
    assert not run(corpus, output, replay="all").worked
    with pytest.raises(InputError, match=r"came 'clip99', which is no.*no clip is quarantined here"):
        run(corpus, output, replay="clip99")


def test_two_at_once_in_one_output_are_refused(expected: tuple[Path, Path], tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "out" / ".work").mkdir(parents=True)
    with (tmp_path / "out" / ".work" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another castbank prepare"):
            run(expected[0], tmp_path / "out")


def test_an_output_that_is_a_file_is_refused(expected: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        run(expected[0], tmp_path / "out")


@pytest.mark.parametrize(
    "wanted", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 2, 3, 5, 6, 7))]
)
def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(
    expected: tuple[Path, Path], tmp_path: Path, wanted: int
) -> None:
    """Killed when that many clips are analysed: early, half way, and on the way to the shards."""
    os.mkfifo(tmp_path / "tickets")
    orders = {f"clip{at}": {"ticket": str(tmp_path / "tickets")} for at in range(len(CAST))}
    corpus, output = make_corpus(tmp_path / "corpus", **orders), tmp_path / "out"
    with (tmp_path / "tickets").open("r+b", buffering=0) as tickets:
        tickets.write(b"t" * wanted)  # the other clips are being analysed, or not yet, when it is killed
        process = start(corpus, output)
        until(lambda: len(analyses(output)) >= wanted or process.poll() is not None, 120)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = analyses(output)
        tickets.write(b"t" * 100)  # for what still dies, too
        run(corpus, output)
    assert len(kept) == wanted
    assert {name: at for name, at in analyses(output).items() if name in kept} == kept
    files = ("manifest.json", "lineage.jsonl")  # which name the clips' files, and those differ by the tickets
    names = [name for name in hashes(expected[1]) if name not in files]
    assert {n: hashes(output)[n] for n in names} == {n: hashes(expected[1])[n] for n in names}
    assert not (output / ".next").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs more rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_while_packing_is_said_and_leaves_nothing(
    expected: tuple[Path, Path], small_disk: Path
) -> None:
    corpus, output = expected[0], small_disk / "out"
    run(corpus, output)
    for path in [*output.glob("*.tar"), output / "manifest.json"]:
        path.unlink()
    used = os.statvfs(small_disk)
    spare_kb = 100
    size_kb = (used.f_blocks - used.f_bfree) * used.f_frsize // 1024 + spare_kb
    subprocess.run(["mount", "-o", f"remount,size={size_kb}k", str(small_disk)], check=True)
    with pytest.raises(InputError, match="the disk is full"):
        run(corpus, output)
    assert not list(output.glob("*.tar"))
    assert not (output / "manifest.json").exists()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    run(corpus, output)
    assert hashes(output) == hashes(expected[1])


def test_other_rules_leave_no_shard_and_no_source_changes_its_side(tmp_path: Path) -> None:
    corpus, output = make_corpus(tmp_path / "corpus"), tmp_path / "out"
    add_clips(corpus, {"other1": [3], "third": [5], "third2": [5]}, "elsewhere")
    config = replace(config_for(corpus, output), pack=PackConfig(samples_per_shard=3, validation=0.2))
    prepare(config, quiet, analyse_one=paint)
    sides = {row.source_id: row.split for row in ShardSet.open(output, "all").rows}
    strict = replace(config, references=replace(config.references, max_count=2))
    done = prepare(strict, quiet, analyse_one=paint)
    assert done.num_kept == 0
    assert {row.source_id: row.split for row in ShardSet.open(output, "all").rows}.items() <= sides.items()
