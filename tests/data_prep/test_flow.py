"""The whole flow on Ray: quarantine, no work twice, byte-identical shards, kills, changed inputs, a full disk.

The clips are small text files and analysis is a function that paints what they say, so that each of these is
seconds; real footage through the real analysis is in tests/jobs/test_prepare.py.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import ledger
from data_prep.config import FaceConfig, PackConfig, PrepareConfig, ReferenceConfig, RunConfig
from data_prep.flow import Prepared, prepare
from data_prep.records import AnalysedClip, Clip, Decision, FaceTrack, InputError, Shot, Window
from data_prep.shards import ShardSet

DIM, FRAMES = 32, 96


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module(face_home: Path) -> Iterator[None]:
    """One Ray for all calls in this process; the killed processes have their own."""
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


def quiet(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


def paint(clip: Clip, config: PrepareConfig) -> AnalysedClip:
    """Analysis of a made clip: its file names the people in view, left to right, and how it misbehaves."""
    order = json.loads(Path(clip.path).read_text())
    time.sleep(order.get("sleep_s", 0))
    if "log" in order:
        (Path(order["log"]) / f"{clip.id}-{time.time_ns()}").touch()
    if order.get("abort") and not Path(order["abort"]).exists():
        os.abort()
    if not order["people"]:
        return AnalysedClip(
            clip, 0, 0, np.zeros(0), (), (), (), (Decision(clip.id, "clip", "dropped", "analyse", "no_face"),)
        )
    rng = np.random.default_rng(int(hashlib.sha256(clip.id.encode()).hexdigest()[:8], 16))
    tracks = tuple(paint_track(clip.id, at, person, rng) for at, person in enumerate(order["people"]))
    windows = []
    for index in range(2):
        track_map = np.zeros((5, 48, 80), np.uint8)
        for at in range(len(tracks)):
            track_map[:, 10:30, 4 + 25 * at : 22 + 25 * at] = at + 1
        frames = np.arange(5, dtype=np.int32) * 2 + 40 * index
        windows.append(Window(index, 0, frames, rng.bytes(20_000), track_map, tuple(t.id for t in tracks)))
    return AnalysedClip(clip, 320, 192, np.arange(FRAMES) / 24, (Shot(0, 0, FRAMES),), tracks, tuple(windows))


def paint_track(clip_id: str, at: int, person: int, rng: np.random.Generator) -> FaceTrack:
    frames = np.arange(FRAMES, dtype=np.int32)
    embedded = frames % 8 == 0
    faces = np.eye(DIM)[person] + rng.normal(size=(FRAMES, DIM)) * 0.11
    faces = (faces / np.linalg.norm(faces, axis=1, keepdims=True)) * embedded[:, None]
    return FaceTrack(
        id=f"{clip_id}-t{at:03d}",
        clip_id=clip_id,
        shot=0,
        frames=frames,
        boxes_px=np.zeros((FRAMES, 4), np.float32),
        landmarks_px=np.zeros((FRAMES, 5, 2), np.float32),
        ovals_px=np.zeros((FRAMES, 4, 2), np.float32),
        scores=np.full(FRAMES, 0.95, np.float32),
        norms=np.asarray(5.0 * embedded, np.float32),
        sharpness=np.asarray(100.0 * embedded, np.float32),
        yaw_deg=np.asarray(rng.uniform(-30, 30, FRAMES), np.float32),
        embedded=embedded,
        embeddings=np.asarray(faces, np.float32),
        crop_frames=frames[embedded][::3],
        crops=rng.integers(0, 256, (4, 112, 112, 3), np.uint8),
    )


CAST = [[0], [1], [0, 1], [2], [0, 2], [1, 2], []]


def make_corpus(folder: Path, **orders: dict[str, Any]) -> Path:
    """Seven clips in three sources; ``clip3={"abort": ...}`` adds to what a clip's file says."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    rows = []
    for at, people in enumerate(CAST):
        name = f"clip{at}"
        order = {"people": people, **orders.get(name, {})}
        (folder / "clips" / f"{name}.mp4").write_text(json.dumps(order))
        rows.append(row(name, f"source{at % 3}", at * 10.0))
    write_manifest(folder / "short.csv", rows)
    return folder


def row(name: str, source: str, start_s: float) -> dict[str, object]:
    return {
        "clip_id": f"{name}.mp4",
        "url": source,
        "fps": 24,
        "frame_width": 320,
        "frame_height": 192,
        "start_time": start_s,
        "end_time": start_s + 4.0,
        "Brief Description": "People talk.",
    }


def write_manifest(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def config_for(corpus: Path, output: Path, max_quarantined: float = 0.0) -> PrepareConfig:
    return PrepareConfig(
        manifest=str(corpus / "short.csv"),
        clips=str(corpus / "clips"),
        output=str(output),
        faces=FaceConfig(),
        references=ReferenceConfig(min_count=2, max_count=3),
        pack=PackConfig(samples_per_shard=3),
        run=RunConfig(num_workers=2, max_attempts=2, max_quarantined=max_quarantined),
    )


def run(corpus: Path, output: Path, **knobs: Any) -> Prepared:
    retry = knobs.pop("retry_quarantined", False)
    return prepare(config_for(corpus, output, **knobs), quiet, analyse_one=paint, retry_quarantined=retry)


def hashes(output: Path) -> dict[str, str]:
    """sha256 of every public file."""
    public = [p for p in output.rglob("*") if p.is_file() and ".work" not in p.parts]
    return {str(p.relative_to(output)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(public)}


def analyses(output: Path) -> dict[str, int]:
    """When each clip's analysis was committed; what a killed run left half-written does not count."""
    whole = [p for p in (output / ".work").glob("*") if p.is_dir() and not p.name.startswith(".")]
    return {p.name.rsplit("-", 1)[0]: p.stat().st_mtime_ns for p in whole}


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
    run(corpus, tmp_path / "fresh")
    assert hashes(tmp_path / "fresh") == hashes(output)


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
    assert fate.replay.endswith("--retry-quarantined")
    assert "clip3" not in {r.clip_id for r in ShardSet.open(output).rows}
    assert not run(corpus, output, max_quarantined=0.2).worked
    healed.touch()
    again = run(corpus, output, max_quarantined=0.2, retry_quarantined=True)
    assert (again.worked, again.facts["num_quarantined"]) == (True, 0)
    assert hashes(output)["shard-000000.tar"] == hashes(expected[1])["shard-000000.tar"]


def test_too_many_quarantined_clips_fail_the_run(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", clip3={"abort": str(tmp_path / "never")})
    with pytest.raises(
        InputError, match=r"run\.max_quarantined: 1 of 7 clips failed.*clip3.*after 2 attempts"
    ):
        run(corpus, tmp_path / "out", max_quarantined=0.1)
    assert not list((tmp_path / "out").glob("*.tar"))
    assert not (tmp_path / "out" / "manifest.json").exists()


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


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {here!r}]
import test_flow
test_flow.prepare(
    test_flow.config_for(Path(sys.argv[1]), Path(sys.argv[2])), test_flow.quiet, analyse_one=test_flow.paint
)
"""


def start(corpus: Path, output: Path) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    code = KILLED.format(root=str(here.parent.parent), here=str(here))
    environment = {**os.environ, "PYTHONPATH": f"{here.parent.parent}:{here}"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(corpus), str(output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


@pytest.mark.parametrize(
    "wanted", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 2, 3, 5, 6, 7))]
)
def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(
    expected: tuple[Path, Path], tmp_path: Path, wanted: int
) -> None:
    """Killed when that many clips are analysed: early, half way, and on the way to the shards."""
    slow = {f"clip{at}": {"sleep_s": 0.3} for at in range(len(CAST))}
    corpus, output = make_corpus(tmp_path / "corpus", **slow), tmp_path / "out"
    process = start(corpus, output)
    deadline = time.monotonic() + 120
    while len(analyses(output)) < wanted and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = analyses(output)
    run(corpus, output)
    assert {name: at for name, at in analyses(output).items() if name in kept} == kept
    names = [name for name in hashes(expected[1]) if name != "manifest.json"]
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
