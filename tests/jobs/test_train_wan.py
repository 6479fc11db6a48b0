"""castbank train and generate on a Wan in the published layout: LoRA, resume, export, and wrong models refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest
import torch

from data_prep.decode import decode_mp4
from jobs.__main__ import main
from pipeline.training.run_folder import read_metrics
from tests.small_shards import make_shards
from tests.small_wan import Published, make_wan

SMALL = """
num_steps: 20
batch_size: 2
model:
  family: {name: wan, wan: {text_tokens: 16, frozen_dtype: fp32}}
  identity: {tokens_per_character: 2, width: 16, encoder_layers: 1, num_heads: 2}
  adapter: {kind: lora, rank: 2, alpha: 2.0}
data: {num_frames: 5, frame_stride: 2, num_workers: 0}
engine: {num_processes: 1, zero_stage: 0}
checkpoints: {every_steps: 5}
tracking: {kind: none, num_samples: 1}
"""


@pytest.fixture(scope="module")
def root(face_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train-wan")
    make_shards(folder / "shards", 6)
    (folder / "small.yaml").write_text(SMALL)
    return folder


def train(root: Path, run: str, model: str, *overrides: str) -> list[str]:
    places = [f"run={root / run}", f"data.shards={root / 'shards'}"]
    return [
        "train",
        *("--config", str(root / "small.yaml")),
        *places,
        f"model.family.wan.pretrained={model}",
        *overrides,
    ]


def published(root: Path, kind: Published) -> Path:
    return root / kind if (root / kind).is_dir() else make_wan(root / kind, kind)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t2v", "i2v", "t2v-a14b"])
def test_a_lora_is_trained_resumed_exported_and_generated_from(kind: Published, root: Path) -> None:
    model = published(root, kind)
    before = {path: path.read_bytes() for path in model.rglob("*.safetensors")}
    run, whole = root / f"{kind}-run", root / f"{kind}-whole"
    anchor = ["model.noise.anchor=0.5"] if kind == "t2v" else []
    assert main(train(root, whole.name, str(model), *anchor)) == 0
    assert main(train(root, run.name, str(model), *anchor)) == 0
    shutil.rmtree(run / "export")  # as if it had ended before the last five steps
    shutil.rmtree(run / "checkpoints" / "step-00000020")
    assert main(train(root, run.name, str(model), *anchor)) == 0
    assert losses(run) == losses(whole) and len(losses(run)) == 20
    exports = [folder / "export" for folder in (run, whole)]
    weights = [(e / "lora" / "adapter_model.safetensors").read_bytes() for e in exports]
    assert weights[0] == weights[1]
    assert not (run / "export" / "transformer").exists()
    assert not list((run / "initial").glob("transformer"))
    assert before == {path: path.read_bytes() for path in model.rglob("*.safetensors")}

    video = root / f"{kind}.mp4"
    command = ["generate", str(run), "num_frames=5", "height_px=32", "width_px=48", "steps=3"]
    command += ["--prompt", "c01 walks", "--cast", "c01", "--output", str(video)]
    if kind == "i2v":
        assert main(command) == 2
        frame = decode_mp4(next((run / "samples").glob("*.mp4")).read_bytes())[0]
        cv2.imwrite(str(root / "first.png"), frame)
        command += ["--anchor", str(root / "first.png")]
    assert main(command) == 0
    assert decode_mp4(video.read_bytes()).shape == (5, 32, 48, 3)


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("t2v", ["data.num_frames=4"], "num_frames: 4 does not fit this family's grouping"),
        ("ti2v", [], "width_px: 48 does not fit this family; use a multiple of 32"),
        ("t2v", ["model.family.wan.expert=low"], "expert=low: "),
        ("i2v", ["model.noise.anchor=0.5"], "model.noise.anchor=0.5: this model of family 'wan'"),
        ("t2v", ["model.family.wan.pretrained=/none"], "'/none': no such folder here"),
        ("t2v", ["model.family.wan.pretrained=''"], "pretrained is empty"),
        ("t2v", ["model.family.wan.shift=0"], "model.family.wan.shift=0.0: must be at least 0.01"),
    ],
)
def test_what_cannot_be_trained_exits_2_with_one_line(
    kind: Published, overrides: list[str], message: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = published(root, kind)
    capsys.readouterr()
    assert main(train(root, "wrong", str(model), *overrides)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (root / "wrong" / "run.json").exists()


@pytest.mark.slow
def test_all_weights_of_a_model_are_kept_where_all_are_trained(root: Path) -> None:
    model = published(root, "t2v")
    full = ["model.adapter.kind=full", "model.adapter.learning_rate=1e-3", "num_steps=2"]
    assert main(train(root, "full", str(model), *full)) == 0
    from diffusers import WanTransformer3DModel

    trained = WanTransformer3DModel.from_pretrained(root / "full" / "export" / "transformer")
    before = WanTransformer3DModel.from_pretrained(model / "transformer")
    assert not torch.equal(trained.proj_out.weight, before.proj_out.weight)
    index = json.loads((root / "full" / "export" / "transformer" / "config.json").read_text())
    assert index["_class_name"] == "WanTransformer3DModel"
