"""castbank export as a person uses it: what others read, a number that says so, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import WanPipeline, WanTransformer3DModel
from peft import LoraConfig

from jobs.__main__ import main
from jobs.export import FORMS
from pipeline.config import AdapterConfig
from pipeline.exports import handover
from tests.tiny_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder, 0, {"anna": 0}, AdapterConfig(kind="lora", rank=3, alpha=7.0))


def test_each_form_says_who_read_it_back(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(FORMS) == set(handover.FORMATS)
    for form, ending, reader in (
        ("diffusers", "", "WanTransformer3DModel.from_pretrained"),
        ("peft", "", "peft and diffusers"),
        ("comfyui", ".safetensors", "WanPipeline.lora_state_dict"),
        ("comfyui-whole", ".safetensors", "WanTransformer3DModel.from_single_file"),
    ):
        output = tmp_path / "made" / f"{form}{ending}"
        assert main(["export", str(run), "--to", form, "--output", str(output)]) == 0
        assert f"read back by {reader}: largest difference 0\n" in capsys.readouterr().out
    made = tmp_path / "made"
    WanTransformer3DModel.from_pretrained(made / "diffusers")
    assert LoraConfig.from_pretrained(made / "peft").lora_alpha == 7.0
    assert len(WanPipeline.lora_state_dict(made / "comfyui.safetensors")) == 16
    assert sorted(path.name for path in made.iterdir()) == [
        "comfyui-whole.safetensors",
        "comfyui.safetensors",
        "diffusers",
        "peft",
    ]


def test_a_shape_that_comfyui_cannot_run_is_noted(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "whole.safetensors"
    assert main(["export", str(run), "--to", "comfyui-whole", "--output", str(output)]) == 0
    assert "note: ComfyUI has no model of this shape: patch_size" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere --to peft --output out", "no such folder; give a finished run"),
        (". --to peft --output out", "neither a run nor an export"),
        ("unfinished --to peft --output out", "the run is not finished"),
        ("run --to comfyui --output out.ckpt", "ends in .safetensors"),
        ("run --to peft --output there", "is there already; give another, or delete it"),
        ("run --to peft --output /proc/none/out", "cannot be written to"),
        ("full --to peft --output out", "trained with all weights, it has no LoRA"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    words: str,
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("mine")
    Path("run").symlink_to(run)
    Path("unfinished").mkdir()
    Path("unfinished/config.yaml").write_text("run: unfinished")
    make_run(Path("full"), 0, {"anna": 0})
    before = sorted(Path().rglob("*"))
    assert main(["export", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


def test_an_unknown_form_names_those_there_are(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["export", str(run), "--to", "onnx", "--output", "out"])
    assert "comfyui-whole" in capsys.readouterr().err
