"""Published models are found in a folder or in the hub's cache; what is no such model is refused by its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from data_prep.records import InputError
from pipeline.families.wan import WanFamily
from tests.small_wan import Folder, config_of

HUB_ID, FIRST, SECOND = "nobody/tiny-wan", "a" * 40, "b" * 40


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_an_export_keeps_to_the_commit_it_was_trained_on(wan: Folder, offline: Path, tmp_path: Path) -> None:
    cached = offline / "models--nobody--tiny-wan"
    for commit, kind in ((FIRST, wan("t2v")), (SECOND, wan("ti2v"))):
        shutil.copytree(kind, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(FIRST)
    config = config_of(Path(HUB_ID))
    family = WanFamily.create(config, [], 0)
    family.save_frozen(tmp_path)
    (cached / "refs" / "main").write_text(SECOND)  # the authors publish another one
    assert WanFamily.look(config).grid.pixels == 16
    loaded = WanFamily.load(config, tmp_path)
    assert loaded.grid.pixels == 8
    weights = family.transformer.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in loaded.transformer.state_dict().items())
    assert WanFamily.look(config_of(Path(HUB_ID), revision=FIRST)).grid.pixels == 8


def broken(folder: Path, to: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(folder, to)
    change(to)
    return to


def edit(file: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no text encoder": (lambda f: shutil.rmtree(f / "text_encoder"), r"no text_encoder in .*whole model"),
    "no scheduler": (edit("model_index.json", scheduler=[None, None]), r"no scheduler in "),
    "another pipeline": (
        edit("model_index.json", _class_name="CogVideoXPipeline"),
        r"is a CogVideoXPipeline; family wan takes WanPipeline or WanImageToVideoPipeline",
    ),
    "another codec": (
        edit("model_index.json", vae=["diffusers", "AutoencoderKL"]),
        r"its vae is a AutoencoderKL; this family takes AutoencoderKLWan",
    ),
    "control channels": (edit("transformer/config.json", in_channels=9), r"takes 9 channels, latents have 4"),
    "no index": (lambda f: (f / "model_index.json").unlink(), r"no model_index\.json in "),
    "damaged index": (lambda f: (f / "model_index.json").write_text("{"), r"cannot be read"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_folder_that_is_not_such_a_model_is_refused_by_its_files(
    name: str, wan: Folder, tmp_path: Path
) -> None:
    change, message = BREAKS[name]
    folder = broken(wan("t2v"), tmp_path / "broken", change)
    with pytest.raises(InputError, match=f"(?s)model.family.wan.pretrained '.*{message}"):
        WanFamily.look(config_of(folder))


def test_weights_that_are_cut_off_are_named(wan: Folder, tmp_path: Path) -> None:
    def cut(folder: Path) -> None:
        path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(InputError, match=r"transformer in .* cannot be loaded"):
        WanFamily.create(config_of(broken(wan("t2v"), tmp_path / "cut", cut)), [], 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": ""}, r"pretrained is empty; give a folder or a hub id such as Wan-AI/"),
        ({"pretrained": "/no/such/folder"}, r"'/no/such/folder': no such folder here"),
        ({"pretrained": "nobody/nothing"}, r"not to be had from the hub .*hf download nobody/nothing"),
        ({"expert": "low"}, r"expert=low: .* has one transformer"),
    ],
)
def test_wrong_knobs_are_named(changes: dict[str, str], message: str, wan: Folder, offline: Path) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        WanFamily.look(config_of(wan("t2v"), **changes))
