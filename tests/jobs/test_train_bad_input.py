"""castbank train on what is wrong: one clear line and exit code 2 for all ranks, or the handling that is promised.

Samples that break the format come from shards with checksums that are right, as another writer could make them; the
one that is wrong is read first by a loading process of one of two ranks, in the middle of training.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep.records import U8
from jobs.__main__ import main
from pipeline.training.run_folder import read_metrics
from tests.jobs.test_train import descendants
from tests.small_shards import HEIGHT, NUM_FRAMES, WIDTH, make_foreign_shards
from tests.small_training import NUM_STEPS, Workplace, start, wait_until
from tests.waiting import until

Change = Callable[[dict[str, bytes]], dict[str, bytes]]
FIRST_WRONG = 7  # of 12 samples; what is read before training begins is the first


def noted(**changes: Any) -> Change:
    """Fields of the sample's json set anew."""

    def change(members: dict[str, bytes]) -> dict[str, bytes]:
        return {**members, "json": json.dumps(json.loads(members["json"]) | changes).encode()}

    return change


def labelled(label_map: U8) -> Change:
    """Another label map."""
    return lambda members: {**members, "labelmap.png": cv2.imencode(".png", label_map)[1].tobytes()}


def unreferenced(members: dict[str, bytes]) -> dict[str, bytes]:
    references = json.loads(members["json"])["references"]
    return noted(references=[[], *references[1:]])(members)


EMPTY = np.zeros((NUM_FRAMES * HEIGHT, WIDTH), np.uint8)
SAMPLES: dict[str, tuple[Change, str]] = {
    "another schema": (noted(schema=99), "schema 99, this castbank reads 1 and 2"),
    "no references": (unreferenced, "no reference; at least one from outside the window is needed"),
    "label map of another size": (
        labelled(EMPTY[: NUM_FRAMES * HEIGHT // 2]),
        "labelmap.png has the shape [144, 48]; 9 frames of 32x48 below each other are [288, 48]",
    ),
}


@pytest.mark.parametrize(("change", "message"), SAMPLES.values(), ids=SAMPLES)
def test_a_sample_that_breaks_the_format_ends_all_ranks(
    change: Change, message: str, place: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = make_foreign_shards(tmp_path / "shards", change, 12, FIRST_WRONG)
    more = [f"data.shards={shards}", f"base={place.folder('whole') / 'export'}", "tracking.kind=none"]
    assert main(place.arguments(tmp_path.name, *more)) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("castbank")]
    print(f"\n{said}")
    assert len(said) == 1 and message in said[0] and f"of '{shards}/shard-" in said[0]
    assert said[0].startswith("castbank train: sample sample-0") and "prepare the shards again" in said[0]
    until(lambda: not descendants(place.folder(tmp_path.name)), 30)
    assert not (place.folder(tmp_path.name) / "export").exists()


def test_masks_that_are_empty_give_losses_that_are_finite(place: Workplace, tmp_path: Path) -> None:
    shards = make_foreign_shards(tmp_path / "shards", labelled(EMPTY), 12, 0)
    more = ["num_steps=2", "tracking.kind=none", "model.losses.mask_probability=1", "engine.num_processes=1"]
    assert main(place.arguments("unmasked", f"data.shards={shards}", *more)) == 0
    for line in read_metrics(place.folder("unmasked") / "metrics.jsonl"):
        assert all(math.isfinite(value) for value in line.values())
        assert line["loss_mask"] == 0.0


IDLE_LORA = ["model.adapter.kind=lora", "model.adapter.targets=[to_nothing]"]
CONFIGURATIONS: dict[str, tuple[list[str], str]] = {
    "frames fewer than asked": (
        ["data.num_frames=17"],
        "needs 33 frames; sample sample-000 has 9: lower one",
    ),
    "frames fewer than the bucket": (
        ["data.buckets=[17x32x48]"],
        "data.buckets=['17x32x48']: none of 12 samples fits one, such as sample-000, 9 frames of 32x48",
    ),
    "a cast larger than the bank": (
        ["model.identity.max_cast=2"],
        "a sample shows 3 characters; set it to 3",
    ),
    "LoRA targets of no layer": (IDLE_LORA, "targets: to_nothing match no linear layer of the transformer"),
    "a ZeRO key that is a knob": (
        ["engine.deepspeed.zero_optimization.stage=1"],
        "zero_optimization.stage=1 is castbank's own; set engine.zero_stage instead",
    ),
    "a key that DeepSpeed ignores": (
        ["engine.deepspeed.wall_clock_break=true"],
        "wall_clock_break is no key of DeepSpeed's, which would ignore it; did you mean wall_clock_breakdown",
    ),
    "a quantised base that is trained": (
        ["engine.base_precision=int8"],
        "base_precision=int8 with model.adapter.kind=full: only the frozen base under a LoRA is quantised",
    ),
    "a quantised base cut up": (
        ["engine.base_precision=nf4", "model.adapter.kind=lora", "engine.zero_stage=3"],
        "base_precision=nf4 with engine.zero_stage=3: stage 3 cuts weights up among the ranks",
    ),
    "ZeRO knobs that exclude each other": (
        ["engine.offload_parameters=cpu"],
        "only engine.zero_stage=3 can offload parameters (engine.zero_stage=2); set it to 3",
    ),
    "a ZeRO key that there is not": (
        ["engine.deepspeed.zero_optimization.reduce_bucket=1"],
        "DeepSpeed refuses it: ",
    ),
    "a family that there is not": (["model.family.name=wna"], "wna"),
    "a family without its model": (
        ["model.family.name=cogvideox"],
        "model.family.cogvideox.pretrained is empty; give a folder or a hub id",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_that_cannot_be_is_one_line(
    overrides: list[str], message: str, place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(place.arguments("impossible", "tracking.kind=none", *overrides)) == 2
    said = capsys.readouterr().err
    print(said)
    assert message in said and said.count("\n") == 1 and said.startswith("castbank train: ")
    assert not (place.folder("impossible") / "checkpoints").exists()


def test_a_base_of_another_family_is_refused(
    place: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = (place.folder("whole") / "export" / "model.yaml").read_text()
    assert "  name: tiny\n" in written
    (tmp_path / "model.yaml").write_text(written.replace("  name: tiny\n", "  name: wan\n"))
    assert main(place.arguments("based", f"base={tmp_path}")) == 2
    said = capsys.readouterr().err
    assert f"base '{tmp_path}' is another model: model.family.name (base wan, here tiny); take" in said


def test_shards_of_another_schema_are_refused(
    place: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = make_foreign_shards(tmp_path / "shards", lambda members: members, 2, 0)
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    assert main(place.arguments("foreign", f"data.shards={shards}")) == 2
    said = capsys.readouterr().err
    assert "schema 99, this castbank reads 1 and 2; prepare the shards again or use the castbank" in said


def test_a_port_that_is_taken_is_named(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        place_of = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        for name, value in {**place_of, "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        assert main(place.arguments("portless")) == 1
    said = capsys.readouterr().err
    assert said.startswith("castbank train: ") and f"port {port} of" in said and "cannot be had" in said
    assert said.count("\n") == 1 and "another MASTER_PORT" in said


@pytest.mark.slow
def test_a_rank_that_dies_is_named_and_a_run_deleted_in_mlflow_is_told_again(
    place: Workplace, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    arguments, folder, log = place.arguments("bereft"), place.folder("bereft"), tmp_path / "log"
    process = start(arguments, log=log)
    wait_until(lambda: len(read_metrics(folder / "metrics.jsonl")) >= 1, process)
    logs = {path.stem: path for path in (folder / "logs").glob("rank-*.log")}
    (victim, *_) = sorted(
        (p for p in descendants(folder) if Path(f"/proc/{p.pid}/fd/1").readlink() == logs["rank-1"]),
        key=lambda p: p.create_time(),
    )
    os.kill(victim.pid, signal.SIGKILL)
    process.join(60)  # within which all have ended
    assert process.exitcode == 1
    assert "rank 1 of 2 was killed by SIGKILL" in log.read_text()
    until(lambda: not descendants(folder), 30)
    assert not (folder / "export").exists()

    client = MlflowClient(f"sqlite:///{place.root / 'runs' / 'mlflow.db'}")
    deleted = (folder / "mlflow_run_id").read_text()
    client.delete_run(deleted)
    assert main(arguments) == 0
    told = (folder / "mlflow_run_id").read_text()
    assert told != deleted
    points = client.get_metric_history(told, "loss")
    assert sorted(point.step for point in points) == list(range(1, NUM_STEPS + 1))
    assert place.curve("bereft") == place.curve("whole")
