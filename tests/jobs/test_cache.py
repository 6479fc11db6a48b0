"""castbank cache: what it leaves is what training reads, once, also after a kill; wrong input is one clear line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from data_prep.records import F32
from jobs import config as configs
from jobs.__main__ import main
from jobs.train import recogniser_of
from pipeline.config import TrainConfig
from pipeline.data.samples import Samples
from tests.small_shards import make_shards
from tests.waiting import until

NUM_SAMPLES = 24
SMALL = """
num_steps: 2
batch_size: 4
model:
  family:
    tiny: {num_layers: 1, num_heads: 2, head_dim: 16, ffn_dim: 32, text_tokens: 8, text_dim: 16}
  identity: {tokens_per_character: 2, width: 16, encoder_layers: 1, num_heads: 2}
data: {num_frames: 3, frame_stride: 2, min_own_face_px: 8, num_workers: 0}
engine: {num_processes: 1}
tracking: {kind: none}
"""


@pytest.fixture(scope="module", autouse=True)
def ray_of_the_module(face_home: Path) -> Iterator[None]:
    """One Ray for all calls in this process; other processes have their own."""
    import ray

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("cache") / "shards", NUM_SAMPLES)


@pytest.fixture
def arguments(shards: Path, tmp_path: Path) -> list[str]:
    """Of cache and of train: the same file and keys."""
    (tmp_path / "small.yaml").write_text(SMALL)
    places = [f"data.shards={shards}", f"data.features={tmp_path / 'features'}"]
    return ["--config", str(tmp_path / "small.yaml"), *places]


def written(folder: Path, killed: bool = False) -> dict[Path, int]:
    """When each file of the cache was written; nothing half-written and no log lies there, but, where a process was
    ``killed``, what it had begun, under a name that nobody reads."""
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    if killed:
        files = {path: at for path, at in files.items() if not path.name.startswith(".")}
    assert all(path.suffix in (".npz", ".safetensors", ".json") for path in files)
    assert not list(folder.rglob(".*"))
    return files


def packs(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}-*/*.safetensors"))


def num_entries(path: Path) -> int:
    with safe_open(path, "np") as opened:
        return len(opened.metadata())  # a checksum of each


def never(*_: object) -> tuple[F32, F32]:
    raise AssertionError("computed although it is cached")


def test_training_computes_nothing_after_it(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *arguments]) == 0
    said = capsys.readouterr().out
    assert f"{NUM_SAMPLES} windows" in said and said.count("24 computed") == 2 and "25 computed" in said
    before = written(tmp_path / "features")
    assert len(packs(tmp_path / "features", "faces")) == NUM_SAMPLES // 8

    config = configs.load(TrainConfig, tmp_path / "small.yaml", ["run=none", *arguments[2:]])
    recogniser = recogniser_of(config)
    lazily = Samples(replace(config.data, features=str(tmp_path / "lazily")), config.seed, recogniser)
    ahead = Samples(config.data, config.seed, replace(recogniser, embed=never))
    for index in range(NUM_SAMPLES):
        one, other = ahead.load(index, 0).faces, lazily.load(index, 0).faces
        assert all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one))
    assert written(tmp_path / "features") == before

    assert main(["train", *arguments, f"run={tmp_path / 'run'}", "data.cache=require"]) == 0
    assert written(tmp_path / "features") == before

    capsys.readouterr()
    assert main(["cache", *arguments, "--check"]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 3
    assert written(tmp_path / "features") == before


@pytest.mark.slow
def test_only_what_is_missing_or_damaged_is_computed(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = tmp_path / "features"
    assert main(["cache", *arguments, "--only", "faces", "data.include_characters=[c03]"]) == 0
    faces = packs(features, "faces")
    assert sum(map(num_entries, faces)) == NUM_SAMPLES // 2 and not packs(features, "latents")
    lost = num_entries(faces[0])
    faces[0].write_bytes(faces[0].read_bytes()[:-8])
    before = written(features)
    assert main(["cache", *arguments]) == 0
    assert f"faces of {NUM_SAMPLES} windows" in (said := capsys.readouterr().out)
    assert f"{NUM_SAMPLES // 2 + lost} computed" in said
    now = written(features)
    assert {path: now[path] for path in before} == before

    cut_short, flipped = packs(features, "latents")[0], packs(features, "text")[0]
    lost = num_entries(cut_short)
    cut_short.write_bytes(cut_short.read_bytes()[:-8])
    data = bytearray(flipped.read_bytes())
    data[-9] ^= 1
    flipped.write_bytes(data)
    assert main(["cache", *arguments, "--dry-run"]) == 0
    assert "nothing to do" in capsys.readouterr().out.splitlines()[-3]  # a flipped bit takes a closer look
    assert main(["cache", *arguments, "--check", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 missing" in said and f"{lost} missing" in said
    assert main(["cache", *arguments, "--check"]) == 0
    assert main(["cache", *arguments, "--check"]) == 0
    assert capsys.readouterr().out.count("nothing to do") == 4  # faces, and then all three


@pytest.mark.slow
def test_killed_and_run_again_it_goes_on(arguments: list[str], tmp_path: Path) -> None:
    features = tmp_path / "features"
    command = [sys.executable, "-m", "jobs", "cache", *arguments, "--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(command, cwd=Path(__file__).parent.parent.parent, env=environment)
    until(lambda: packs(features, "latents") or process.poll() is not None, 200)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in packs(features, "latents")}
    assert kept
    assert main(["cache", *arguments]) == 0
    now = written(features, killed=True)
    assert {path: now[path] for path in kept} == kept


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.shards=/none"], "no such folder"),
        (["data.frame_stride=0"], "data.frame_stride=0: must be at least 1"),
        (["data.num_frames=17"], "data.num_frames=17"),
        (["data.features=/dev/null/none"], "data.features: "),
        (["data.pack=missing"], "no pack is called 'missing'"),
        (["model.identity.embedding_dim=192"], "embeds in 512"),
        (["model.identity.max_cast=2"], "a sample shows 3 characters; set it to 3"),
        (["data.num_frame=1"], "did you mean 'data.num_frames'"),
        (["--workers", "-1"], "--workers: came -1"),
        (["--batch", "0"], "--batch: came 0"),
        (["data.flip=2"], "data.flip=2.0: must be from 0 to 1"),
        (["data.buckets=[32x48]"], "data.buckets: came '32x48'; give FRAMESxHEIGHTxWIDTH"),
        (["data.buckets=[3x32x48,3x32x48]"], "data.buckets: 3x32x48, 3x32x48: one comes twice"),
        (["data.buckets=[3x64x96]"], "none of 24 samples fits one, such as sample-000, 9 frames of 32x48"),
        (
            ["data.buckets=[3x30x48]"],
            "height_px: 30 does not fit this family; use a multiple of 16",
        ),
    ],
)
def test_wrong_input_is_one_clear_line(
    more: list[str], message: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *arguments, *more]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_damaged_sample_is_named(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = make_shards(tmp_path / "torn", 6)
    data = bytearray((shards / "shard-000001.tar").read_bytes())
    data[2000] ^= 1
    (shards / "shard-000001.tar").write_bytes(data)
    assert main(["cache", *arguments, f"data.shards={shards}"]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("castbank")]
    assert len(said) == 1 and "damaged" in said[0]
