"""castbank plan from the command line: its table, its JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from pipeline.families.published import MODELS


def test_a_published_model(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["engine.dtype=bf16", "engine.zero_stage=3", "engine.activation_checkpointing=true"]
    assert main(["plan", "--model", "wan2.1-t2v-14b", "--gpus", "8", *asked]) == 0
    said = capsys.readouterr().out
    assert "1 x 32760 tokens per GPU" in said  # 21 latent frames of 30 x 52
    assert "bf16, ZeRO-3, 8 GPUs, checkpointing on" in said
    assert "what would fit" in said


def test_json_of_a_training_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "plan",
        "--config",
        "jobs/configs/train_tiny.yaml",
        "--gpus",
        "2",
        "--json",
        "model.identity.every=2",
    ]
    assert main(arguments) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["tokens"]["batch"] == 4  # batch_size 8 on 2 GPUs
    assert made["tokens"]["visual"] == 2 * 6 * 10
    assert made["peak"] == max(made["moments"].values())
    assert made["would_fit"][0]["card_gb"] == 24


def test_a_transformer_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = MODELS["wan2.1-t2v-1.3b"]
    (tmp_path / "transformer").mkdir()
    written = {"_class_name": model.class_name, **model.transformer}
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(written))
    assert main(["plan", "--model", str(tmp_path), "--frames", "17", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert main(["plan", "--model", "wan2.1-t2v-1.3b", "--frames", "17", "--json"]) == 0
    two = json.loads(capsys.readouterr().out)
    assert one["bytes"] == two["bytes"]


def test_a_quantised_base_takes_less_and_no_stage_3_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "--model", "wan2.1-t2v-14b", "--json", "engine.dtype=bf16", "model.adapter.kind=lora"]
    frozen = {}
    for kind in ("dtype", "int8", "nf4"):
        assert main([*asked, f"engine.base_precision={kind}"]) == 0
        made = json.loads(capsys.readouterr().out)
        frozen[kind] = made["bytes"]["weights, frozen"]
        assert kind == "dtype" or all(found["zero_stage"] < 3 for found in made["would_fit"])
    assert 0.5 < frozen["int8"] / frozen["dtype"] < 0.52
    assert 0.25 < frozen["nf4"] / frozen["dtype"] < 0.29
    assert main([*asked[:-1], "engine.base_precision=nf4"]) == 2
    assert "only the frozen base under a LoRA" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(Path("jobs/configs").glob("train_[wc]*.yaml")), ids=lambda p: p.stem)
def test_every_published_configuration_fits_the_gpus_that_it_asks_for(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--config", str(path), "--gpus", "8", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["peak"] < 74 * 2**30, path  # of 80 GB cards, as far as they can be used


def test_a_published_configuration_plans_its_own_model_as_it_would_be_trained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--config", "jobs/configs/train_wan2.1_t2v_1.3b.yaml", "--gpus", "8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Wan-AI/Wan2.1-T2V-1.3B-Diffusers: ")
    assert "1 x 32760 tokens per GPU\nbf16, ZeRO-2, 8 GPUs, checkpointing on" in said


def test_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(MODELS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "wan2.1-t2v-15b"], "did you mean 'wan2.1-t2v-14b'"),
        (
            ["--model", "cogvideox-5b", "--frames", "48"],
            "--frames 48: cogvideox-5b wants 1 + a multiple of 4",
        ),
        (
            ["--model", "wan2.2-ti2v-5b", "--height", "720"],
            "--height 720: wan2.2-ti2v-5b wants a multiple of 32",
        ),
        (["--model", "wan2.1-t2v-14b", "--gpus", "0"], "--gpus 0"),
        (
            ["--model", "wan2.1-t2v-14b", "--gpus", "8", "batch_size=12"],
            "batch_size=12: not a multiple of 8 GPUs",
        ),
        (["--model", "cogvideox-5b", "--both-experts"], "cogvideox-5b has one transformer"),
        (
            ["model.adapter.kind=lora", "model.adapter.targets=[qkv]"],
            "model.adapter.targets: qkv match no layer",
        ),
        (["model.adapter.kind=none", "model.adapter.train_identity=false"], "train_identity"),
        (["--model", "tests"], "no transformer/config.json and no config.json there"),
        (
            ["model.family.name=wan"],
            "model.family.wan.pretrained is empty; give a folder or a hub id, or --model",
        ),
        (["model.identity.every=0"], "model.identity.every=0: must be at least 1"),
        (["engine.zero_stage=4"], "engine.zero_stage"),
    ],
)
def test_what_it_refuses(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    assert said in capsys.readouterr().err
