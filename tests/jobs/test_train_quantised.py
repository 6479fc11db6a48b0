"""castbank train and generate with a quantised base: resumed to the same bytes, the published model untouched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_prep.decode import decode_mp4
from jobs.__main__ import main
from pipeline.training.run_folder import read_metrics
from tests.small_shards import make_shards
from tests.small_wan import make_wan

pytest.importorskip("torchao")
SMALL = """
num_steps: 4
batch_size: 2
model:
  family: {name: wan, wan: {text_tokens: 16, frozen_dtype: fp32}}
  identity: {tokens_per_character: 2, width: 16, encoder_layers: 1, num_heads: 2}
  adapter: {kind: lora, rank: 2, alpha: 2.0}
data: {num_frames: 5, frame_stride: 2, num_workers: 0}
engine: {num_processes: 1, zero_stage: 2, dtype: bf16, base_precision: nf4, activation_checkpointing: true}
checkpoints: {every_steps: 2}
tracking: {kind: none, num_samples: 1}
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_lora_on_nf4_is_trained_resumed_exported_and_generated_from(
    face_home: Path, tmp_path: Path
) -> None:
    make_shards(tmp_path / "shards", 6)
    model = make_wan(tmp_path / "model", "t2v")
    (tmp_path / "small.yaml").write_text(SMALL)
    before = {path: path.read_bytes() for path in model.rglob("*.safetensors")}

    def train(run: str) -> Path:
        places = [f"run={tmp_path / run}", f"data.shards={tmp_path / 'shards'}"]
        given = [*places, f"model.family.wan.pretrained={model}"]
        assert main(["train", "--config", str(tmp_path / "small.yaml"), *given]) == 0
        return tmp_path / run

    whole, half = train("whole"), train("half")
    shutil.rmtree(half / "export")  # as if it had ended before the last two steps
    shutil.rmtree(half / "checkpoints" / "step-00000004")
    train("half")
    curves = [[line["loss"] for line in read_metrics(run / "metrics.jsonl")] for run in (whole, half)]
    assert curves[0] == curves[1] and len(curves[0]) == 4
    loras = [run / "export" / "lora" / "adapter_model.safetensors" for run in (whole, half)]
    assert loras[0].read_bytes() == loras[1].read_bytes()
    assert not (whole / "export" / "transformer").exists()
    assert before == {path: path.read_bytes() for path in model.rglob("*.safetensors")}

    video = tmp_path / "video.mp4"
    command = ["generate", str(whole), "num_frames=5", "height_px=32", "width_px=48", "steps=3"]
    assert main([*command, "--prompt", "c01 walks", "--cast", "c01", "--output", str(video)]) == 0
    assert decode_mp4(video.read_bytes()).shape == (5, 32, 48, 3)
