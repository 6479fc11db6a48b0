"""castbank generate from a run's folder to files, repeated by its own note, and its answers to wrong input."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_prep.decode import decode_mp4
from jobs.__main__ import main
from jobs.layouts import read_layouts
from pipeline import model as models
from pipeline.config import FamilyConfig, GenerateConfig, IdentityConfig, ModelConfig, TinyConfig
from pipeline.identity.bank import BankEntry, IdentityBank

SAMPLING = ["num_frames=3", "height_px=32", "width_px=48", "steps=2"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    identity = IdentityConfig(
        embedding_dim=16, tokens_per_character=2, width=24, encoder_layers=1, num_heads=2
    )
    tiny = TinyConfig(num_layers=1, num_heads=2, head_dim=24, ffn_dim=32)
    config = ModelConfig(family=FamilyConfig(tiny=tiny), identity=identity)
    model = models.create(config, [torch.rand(2, 3, 32, 48)], seed=0)
    models.save(model, folder / "export")
    entries = [BankEntry(name, torch.randn(2, 24), torch.randn(3, 16)) for name in ("anna", "ben")]
    IdentityBank(entries).save(folder / "export" / "bank")
    return folder


def command(run_folder: Path, output: Path, *more: str) -> list[str]:
    return ["generate", str(run_folder), *SAMPLING, "--prompt", "Anna waves.", "--output", str(output), *more]


def test_it_writes_video_sheet_and_a_note_that_repeats_it(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    layout = np.zeros((32, 48), np.uint8)
    layout[:, 24:] = 2
    cv2.imwrite(str(tmp_path / "layout.png"), layout)
    assert (
        main(command(run_folder, output, "--cast", "anna,ben", "--layout", str(tmp_path / "layout.png"))) == 0
    )
    assert "3 frames of 48x32 with anna, ben" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} == {"layout.png", "out.mp4", "out.png", "out.json"}
    assert decode_mp4(output.read_bytes()).shape == (3, 32, 48, 3)
    assert cv2.imread(str(output.with_suffix(".png"))).shape == (32, 3 * 48, 3)

    note = json.loads(output.with_suffix(".json").read_text())
    assert note["cast"] == ["anna", "ben"] and note["config"]["steps"] == 2
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    assert note["video_sha256"] == digest
    output.unlink()
    assert main(shlex.split(note["command"])[1:]) == 0
    assert hashlib.sha256(output.read_bytes()).hexdigest() == digest


def test_a_strategy_is_chosen_noted_and_repeated(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, anchor = np.zeros((32, 48), np.uint8), np.full((32, 48, 3), 90, np.uint8)
    layout[:, 24:] = 2
    cv2.imwrite(str(tmp_path / "layout.png"), layout)
    cv2.imwrite(str(tmp_path / "anchor.png"), anchor)
    output = tmp_path / "out.mp4"
    words = command(run_folder, output, "--cast", "anna,ben", "--layout", str(tmp_path / "layout.png"))
    words += ["--anchor", str(tmp_path / "anchor.png"), "--strategy", "anchored+keyframes+tracked+bank"]
    assert main([*words, "strategy.window=3", "num_frames=5", "strategy.bias=inf"]) == 0
    assert "5 frames of 48x32 with anna, ben" in capsys.readouterr().out
    note = json.loads(output.with_suffix(".json").read_text())
    assert note["config"]["strategy"]["name"] == "anchored+keyframes+tracked+bank"
    assert note["num_steps"] == 6 and note["drawn"]["keyframes"] == [0, 2, 4]
    assert cv2.imread(str(tmp_path / "out.keyframe-2.png")).shape == (32, 48, 3)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    output.unlink()
    assert main(shlex.split(note["command"])[1:]) == 0
    assert hashlib.sha256(output.read_bytes()).hexdigest() == digest == note["video_sha256"]


@pytest.mark.parametrize("form", ["folder", "npz", "json"])
def test_a_layout_over_time_comes_in_three_forms(form: str, run_folder: Path, tmp_path: Path) -> None:
    """Ben goes from the left half to the right one, over three frames."""
    labels = np.zeros((3, 32, 48), np.uint8)
    for frame, left in enumerate((0, 12, 24)):
        labels[frame, :, left : left + 24] = 2
    (tmp_path / "folder").mkdir()
    for frame, picture in enumerate(labels):
        cv2.imwrite(str(tmp_path / "folder" / f"{frame}.png"), picture)
    np.savez_compressed(tmp_path / "l.npz", labels=labels)
    keys = [{"frame": 0, "box": [0, 0, 0.5, 1]}, {"frame": 2, "box": [0.5, 0, 1, 1]}]
    (tmp_path / "l.json").write_text(json.dumps({"ben": keys}))
    path = {"folder": tmp_path / "folder", "npz": tmp_path / "l.npz", "json": tmp_path / "l.json"}[form]
    config = GenerateConfig(num_frames=3, height_px=32, width_px=48)
    assert np.array_equal(read_layouts(path, ("anna", "ben"), config), labels)


def test_a_run_says_at_what_size_it_is_drawn(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run_folder / "export", tmp_path / "export")
    (tmp_path / "export" / "seen.yaml").write_text("num_frames: 2\nheight_px: 48\nwidth_px: 32\nfps: 6.0\n")
    words = [
        "generate",
        str(tmp_path),
        "steps=1",
        "--prompt",
        "Anna waves.",
        "--output",
        str(tmp_path / "a.mp4"),
    ]
    assert main(words) == 0
    assert "2 frames of 32x48" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["config"]["fps"] == 6.0
    assert main([*words, "num_frames=1"]) == 0
    assert "1 frames of 32x48" in capsys.readouterr().out
    assert main([*words, "num_frames=3", "--strategy", "context+bank"]) == 0  # its window is what was trained
    assert json.loads((tmp_path / "a.json").read_text())["drawn"]["windows"] == [[0, 2, 0], [1, 3, 1]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--cast", "ana"], "did you mean 'anna'"),
        (["--cast", "anna,anna"], "once"),
        (["--layout", "nowhere.png"], "--layout: 'nowhere.png' is not a file"),
        (["--anchor", "nowhere.png"], "--anchor: 'nowhere.png' is not a file"),
        (["--cast", "ben"], "names nobody of the cast (ben); say who does what by name, or <person-1>"),
        (["--reference", "dora"], "--reference: came 'dora'; give NAME=PICTURE"),
        (["--reference", "dora=none.png"], "--reference: 'none.png' is not a file"),
        (["--prompts", "none.jsonl"], "--prompt: came beside --prompts"),
        (["--output", "out.avi"], "ends in .mp4"),
        (["--strategy", "keyframe"], "did you mean 'keyframes'"),
        (["--strategy", "context+keyframes"], "both decide the time"),
        (["--strategy", "context+bank"], "one window"),
        (["--strategy", "two-paths"], "no low-frequency path"),
        (["--strategy", "lock", "--cast", "anna"], "model.adapter.lock=[anna]"),
        (["--strategy", "anchored+bank", "--cast", "anna"], "no picture of the cast"),
        (["--output", "/proc/none/out.mp4"], "cannot be written to"),
    ],
)
def test_wrong_input_exits_2_and_writes_nothing(
    more: list[str], message: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(run_folder, tmp_path / "out.mp4", *more)) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stepz=3", "did you mean 'steps'"),
        ("height_px=50", "height_px: 50"),
        ("strategy=bank", "strategy"),
        ("strategy.bias=-1", "strategy.bias=-1.0: must be at least 0"),
        ("strategy.rewriter_key=secret", "strategy.rewriter_key=env:NAME"),
        ("strength=-1", "it must be at least 0: 0 is nobody, 0.7 to 0.85 the useful band"),
    ],
)
def test_wrong_knobs_exit_2(
    override: str, message: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(run_folder, tmp_path / "out.mp4")
    arguments.insert(2 + len(SAMPLING), override)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_a_run_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, tmp_path / "out.mp4")) == 2
    assert "not an exported model" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["steps=0", "steps=-1", "fps=0", "strength=-1", "num_frames=0"])
def test_values_that_no_video_can_have_are_refused_before_the_model_loads(
    tmp_path: Path, override: str
) -> None:
    arguments = ["generate", str(tmp_path / "no-run"), "--prompt", "x", "--output", str(tmp_path / "a.mp4")]
    assert main([*arguments, override]) == 2
    assert not list(tmp_path.iterdir())
