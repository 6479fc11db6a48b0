"""castbank train with the low-frequency path and a schedule: shards in, a bank that draws, and an exact resume."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from data_prep.records import InputError
from jobs import config as configs
from jobs.__main__ import main
from jobs.train import recogniser_of
from jobs.train_checks import check
from pipeline.config import TrainConfig
from pipeline.identity.bank import IdentityBank
from tests.small_shards import face, make_shards
from tests.small_training import SMALL, Workplace

ON = [
    "num_steps=4",
    "checkpoints.every_steps=2",
    "tracking.kind=none",
    "tracking.num_samples=1",
    "engine.zero_stage=3",
    "model.identity.low_frequency=true",
    "model.schedule.coarse=0.25",
    "model.schedule.fade_in=0.5",
    "model.schedule.losses=[routing]",
]


@pytest.fixture(scope="module")
def trained(face_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A run on two ranks, each with a part of every weight."""
    root = tmp_path_factory.mktemp("low_frequency")
    make_shards(root / "shards")
    (root / "small.yaml").write_text(SMALL)
    made = Workplace(root)
    assert main(made.arguments("coarse", *ON)) == 0
    return made


@pytest.mark.slow
def test_the_bank_keeps_pictures_and_draws_with_them(trained: Workplace, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    export = trained.folder("coarse") / "export"
    weights = load_file(export / "identity.safetensors")
    assert weights["low_frequency.embed.weight"].abs().max() > 0  # learned
    entry = IdentityBank.load(export / "bank").entry("c02")
    assert entry.picture is not None and entry.landmarks is not None
    assert torch.equal(entry.picture, torch.from_numpy(face("c02", 0)))  # the most frontal
    draw = [
        "num_frames=3",
        "height_px=32",
        "width_px=48",
        "steps=2",
        "--prompt",
        "c01 and c02",
        "--cast",
        "c02,c01",
    ]
    draw = ["generate", str(trained.folder("coarse")), *draw, "--output", str(tmp_path / "out.mp4")]
    assert main(draw) == 0


@pytest.mark.slow
def test_phases_follow_the_step_and_a_resumed_run_is_the_same(trained: Workplace) -> None:
    folder, whole = trained.folder("coarse"), trained.curve("coarse")
    assert [line["fine_share"] for line in whole] == pytest.approx([0, 0, 0.5, 1])
    shutil.rmtree(folder / "export")
    shutil.rmtree(folder / "checkpoints" / "step-00000004")
    assert main(trained.arguments("coarse", *ON)) == 0
    assert trained.curve("coarse") == whole
    weights = (folder / "export" / "identity.safetensors").read_bytes()
    assert weights


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.schedule.coarse=1.5"], r"model\.schedule\.coarse=1\.5: must be from 0 to 1"),
        (["model.schedule.coarse=0.7", "model.schedule.fade_in=0.5"], "more than the whole training"),
        (["model.identity.low_frequency=false"], "nothing else tells of the cast; set model.identity.low"),
        (
            ["model.schedule.losses=[diffusion]"],
            "give some of mask, routing, identity",
        ),
    ],
)
def test_phases_that_no_training_can_have_are_named(overrides: list[str], message: str) -> None:
    asked = ["run=none", "data.shards=none", "model.identity.low_frequency=true", "model.schedule.coarse=0.2"]
    with pytest.raises(InputError, match=message):
        check(configs.load(TrainConfig, None, [*asked, *overrides]))


def test_a_pack_that_finds_no_landmarks_is_named(face_home: Path) -> None:
    asked = ["run=none", "data.shards=none", "model.identity.low_frequency=true", "data.pack=embedded_alt"]
    config = configs.load(TrainConfig, None, [*asked, "model.identity.embedding_dim=192"])
    with pytest.raises(InputError, match=r"low_frequency, data\.pack='embedded_alt'.*take 'embedded'"):
        recogniser_of(config)
