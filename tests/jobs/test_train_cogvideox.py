"""castbank train and generate on a tiny CogVideoX in the published layout, as a person runs them."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import yaml

from jobs import config as configs
from jobs import train_checks
from jobs.__main__ import main
from pipeline.config import TrainConfig
from pipeline.training.run_folder import read_metrics
from tests.small_cogvideox import TEXT_TOKENS, make_model
from tests.small_shards import HEIGHT, NUM_FRAMES, WIDTH, make_shards
from tests.small_training import Workplace, start, wait_until

CONFIGS = sorted(Path("jobs/configs").glob("train_cogvideox*.yaml"))
NUM_STEPS = 20


@pytest.fixture(scope="module")
def place(face_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("cogvideox")
    make_shards(root / "shards")
    family = {"pretrained": str(make_model(root / "model", "1.5")), "text_tokens": TEXT_TOKENS}
    small = {
        "num_steps": NUM_STEPS,
        "batch_size": 2,
        "model": {
            "family": {"name": "cogvideox", "cogvideox": family},
            "identity": {"tokens_per_character": 2, "width": 16, "encoder_layers": 1, "num_heads": 2},
            "noise": {"distribution": "uniform"},
            "adapter": {"kind": "lora", "rank": 2, "learning_rate": 1e-3},
        },
        "data": {"num_frames": NUM_FRAMES, "frame_stride": 1},
        "engine": {"num_processes": 1},
        "checkpoints": {"every_steps": 5},
        "tracking": {"kind": "none"},
    }
    (root / "small.yaml").write_text(yaml.safe_dump(small))
    return Workplace(root)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_trains_goes_on_exactly_and_generates(place: Workplace) -> None:
    assert main(place.arguments("whole")) == 0
    whole = place.curve("whole")
    assert [line["step"] for line in whole] == list(range(1, NUM_STEPS + 1))

    process = start(place.arguments("stopped"))
    wait_until(lambda: len(read_metrics(place.folder("stopped") / "metrics.jsonl")) >= 7, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode in (0, 75)
    assert main(place.arguments("stopped")) == 0
    assert place.curve("stopped") == whole

    export = place.folder("whole") / "export"
    assert (export / "lora").is_dir() and not (export / "transformer").exists()
    output = place.root / "out.mp4"
    size = [f"num_frames={NUM_FRAMES}", f"height_px={HEIGHT}", f"width_px={WIDTH}", "steps=3", "guidance=6"]
    who = ["--prompt", "c01 and c02 drift", "--cast", "c01,c02", "--output", str(output)]
    assert main(["generate", str(place.folder("whole")), *size, *who]) == 0
    assert output.stat().st_size > 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.family.cogvideox.pretrained=''", "pretrained is empty; give a folder or a hub id"),
        ("model.noise.anchor=0.5", "noise.anchor=0.5"),
        ("model.family.cogvideox.text_tokens=226", "text_tokens=226: .* read 12; set it to 12"),
    ],
)
def test_wrong_input_is_named(
    override: str, message: str, place: Workplace, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(place.arguments("wrong", override)) == 2
    assert re.search(message, capfd.readouterr().err)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_published_configurations_are_in_range(path: Path) -> None:
    config = configs.load(TrainConfig, path, ["run=r", "data.shards=s"])
    configs.check_ranges(config, train_checks.ALLOWED)
    assert config.model.family.name == "cogvideox"
    assert config.model.family.cogvideox.pretrained.startswith("zai-org/CogVideoX")
    assert config.data.num_frames % 4 == 1
    assert len(CONFIGS) == 3
