"""Preparation in three real places, and a whole chain on Slurm: real footage, compared byte for byte."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.job_folder import JobFolder
from cluster.registry import Registry
from jobs.__main__ import main
from tests.cluster.ray_lab import RayLab, ray_lab
from tests.cluster.slurm_lab.lab import Lab
from tests.submitted import empty_the_queue, succeeded
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
CLIPS = ("garage-01", "garage-02", "launch-01", "launch-02", "call-01", "call-02", "cafe-01", "cafe-02")
LIMIT_S = 900.0
CONFIG = """
num_steps: 8
batch_size: 4
model:
  family: {tiny: {num_layers: 2, num_heads: 2, head_dim: 16, ffn_dim: 32, latent_channels: 16, text_tokens: 8,
    text_dim: 16}}
  identity: {tokens_per_character: 2, width: 16, encoder_layers: 1, num_heads: 2}
data: {num_frames: 2, frame_stride: 8}
checkpoints: {every_steps: 4}
tracking: {num_samples: 1}
"""


@pytest.fixture(scope="module")
def root(face_home: Path, footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A manifest of some of the footage, configurations, and an empty CASTBANK_HOME with the face packs."""
    made = tmp_path_factory.mktemp("data-places")
    (made / "home").mkdir()
    (made / "home" / "models").symlink_to(face_home / "models")
    with (footage / "short.csv").open(newline="", encoding="utf-8-sig") as source:
        rows = list(csv.DictReader(source))
    with (made / "short.csv").open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["clip_id"].removesuffix(".mp4") in CLIPS)
    (made / "train.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CASTBANK_HOME", str(made / "home"))
        patch.chdir(made)
        yield made
        empty_the_queue()


@pytest.fixture(scope="module")
def ray() -> Iterator[RayLab]:
    with ray_lab(head_cpus=1) as lab, pytest.MonkeyPatch.context() as patch:
        lab.add_node(1)
        lab.wait(2)
        patch.setenv("RAY_ADDRESS", lab.address)
        yield lab


def preparation(root: Path, footage: Path, name: str) -> dict[str, object]:
    demo = Path(__file__).parent.parent.parent / "jobs" / "configs" / "prepare_demo.yaml"
    words = ["prepare", "short.csv", "--output", f"shards-{name}", "--config", str(demo)]
    return {
        "name": name,
        "folder": str(root / "jobs" / name),
        "command": [*words, f"clips={footage / 'clips'}"],
    }


def submit(root: Path, job: dict[str, object], place: str, *overrides: str) -> JobFolder:
    path = root / f"{job['name']}.json"
    path.write_text(json.dumps(job))
    assert main(["submit", str(path), "--on", place, *overrides]) == 0
    return JobFolder(Path(str(job["folder"])))


def public_bytes(folder: Path) -> dict[str, str]:
    """sha256 of every file of a shard folder; its configuration names its own folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".work" not in path.parts and path.name != "config.yaml"
    }


@pytest.fixture(scope="module")
def reference(root: Path, footage: Path) -> dict[str, str]:
    """What this machine makes of the clips, as a job of the local queue."""
    succeeded(submit(root, preparation(root, footage, "local"), "local"), LIMIT_S)
    found = public_bytes(root / "shards-local")
    assert "manifest.json" in found
    assert any(name.startswith("shard-") for name in found)
    return found


def test_an_array_of_four_on_slurm_gives_the_same_bytes(
    root: Path, footage: Path, reference: dict[str, str], slurm: Lab
) -> None:
    job = preparation(root, footage, "slurm")
    whole = submit(root, job, "slurm", "array=4", "keys.run.num_workers=1")
    succeeded(JobFolder(whole.folder.with_name("slurm-parts")), LIMIT_S)
    succeeded(whole, LIMIT_S)
    assert "0 of" in whole.rank_log(0).read_text() or "analyse" in whole.rank_log(0).read_text()
    assert public_bytes(root / "shards-slurm") == reference


def test_a_ray_job_on_two_nodes_gives_the_same_bytes_though_one_is_killed(
    root: Path, footage: Path, reference: dict[str, str], ray: RayLab
) -> None:
    place = submit(root, preparation(root, footage, "ray"), "ray", "keys.run.num_workers=2")
    work = root / "shards-ray" / ".work"
    until(
        lambda: work.is_dir() and any(p.is_dir() and not p.name.startswith(".") for p in work.iterdir()),
        LIMIT_S,
    )
    ray.nodes[1].kill_raylet()
    ray.add_node(1)
    succeeded(place, LIMIT_S)
    assert public_bytes(root / "shards-ray") == reference


def test_a_chain_on_slurm_from_one_command_to_its_end(root: Path, footage: Path, slurm: Lab) -> None:
    demo = Path(__file__).parent.parent.parent / "jobs" / "configs" / "prepare_demo.yaml"
    prepare = ["prepare", "short.csv", "--output", "${folder}/shards", "--config", str(demo)]
    data = {"data": {"shards": "${folder}/shards"}}
    steps = {
        "prepare": {"command": [*prepare, f"clips={footage / 'clips'}"], "array": 2},
        "cache": {"command": ["cache", "--config", "train.yaml"], "keys": data},
        "train": {
            "command": ["train", "--config", "train.yaml"],
            "keys": data,
            "resources": {"nodes": 2},
        },
        "evaluate": {"command": ["evaluate", "${folder}/train", "--output", "${folder}/evaluation"]},
    }
    folder = root / "film"
    submit(root, {"name": "film", "folder": str(folder), "steps": steps}, "slurm")
    for step in ("prepare-parts", "prepare", "cache", "train", "evaluate"):
        succeeded(JobFolder(folder / step), LIMIT_S)
    assert (folder / "train" / "export" / "bank").is_dir()
    judged = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert judged
    assert (folder / "evaluation" / "evaluation.html").is_file()
    jobs = Registry(root / "home" / "jobs").all()
    assert len([job_id for job_id in jobs if job_id.startswith("film-")]) == 5
