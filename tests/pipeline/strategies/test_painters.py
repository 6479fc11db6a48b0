"""First frames: a collage shows each of the cast in place; a text-to-image pipeline on disk draws what it would."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig, StrategyConfig
from pipeline.generate import Scene
from pipeline.strategies.painters import GREY, PAINTERS

CONFIG = GenerateConfig(num_frames=3, height_px=96, width_px=160, seed=5)
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))


@pytest.fixture
def coloured() -> Scene:
    """A cast of three whose pictures are of one colour each."""
    faces = np.stack([np.full((112, 112, 3), colour, np.uint8) for colour in COLOURS])
    return Scene("Three people.", faces=faces)


def painted(scene: Scene, **chosen: Any) -> U8:
    config = StrategyConfig(painter="collage", **chosen)
    return PAINTERS["collage"](config)("", scene, CONFIG)


def box_of(picture: U8, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((picture == colour).all(-1))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("num", [1, 2, 3])
def test_the_cast_stands_from_left_to_right_whole_and_apart(num: int, coloured: Scene) -> None:
    assert coloured.faces is not None
    picture = painted(replace(coloured, faces=coloured.faces[:num]))
    assert picture.shape == (96, 160, 3)
    boxes = [box_of(picture, colour) for colour in COLOURS[:num]]
    for x1, y1, x2, y2 in boxes:
        assert x2 - x1 == y2 - y1 >= 0.3 * 96
        assert ((picture[y1:y2, x1:x2] != GREY).any(-1)).all()
    assert all(left[2] <= right[0] for left, right in pairwise(boxes))


def test_a_permuted_cast_changes_places(coloured: Scene) -> None:
    assert coloured.faces is not None
    turned = painted(replace(coloured, faces=coloured.faces[::-1]))
    assert box_of(turned, COLOURS[0]) == box_of(painted(coloured), COLOURS[2])


def test_a_layout_says_where(coloured: Scene) -> None:
    layout = np.zeros((2, 96, 160), np.uint8)
    layout[0, 10:40, 100:130], layout[0, 50:90, 0:40] = 1, 2
    layout[1] = 3  # what the second frame shows is not asked
    picture = painted(replace(coloured, layout=layout))
    assert box_of(picture, COLOURS[0]) == (100, 10, 130, 40)
    assert box_of(picture, COLOURS[1]) == (0, 50, 40, 90)


def test_a_background_covers_the_picture(coloured: Scene, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((50, 200, 3), (7, 99, 180), np.uint8))
    picture = painted(coloured, background=str(tmp_path / "wall.png"))
    assert (picture[0, 0] == (180, 99, 7)).all() and not (picture == GREY).all(-1).any()
    with pytest.raises(InputError, match=r"strategy\.background=nowhere\.png: not a picture"):
        painted(coloured, background="nowhere.png")


def test_a_cast_without_pictures_is_told_what_helps() -> None:
    with pytest.raises(InputError, match=r"no picture of the cast; .*--anchor"):
        painted(Scene("Anna."))


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Stable Diffusion of a few thousand parameters, saved by diffusers in the published layout."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    root = tmp_path_factory.mktemp("painter")
    words = root / "words"
    words.mkdir()
    letters = [
        *"abcdefghijklmnopqrstuvwxyz.,",
        *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz.,"),
    ]
    names = ["<|startoftext|>", "<|endoftext|>", *letters]
    (words / "vocab.json").write_text(json.dumps({name: number for number, name in enumerate(names)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(4)
    text = CLIPTextConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=8,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=77),
        unet=unet,
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(root / "pipeline")
    return root / "pipeline"


def test_a_pipeline_on_disk_draws_its_own_picture_of_the_videos_size(pipeline_folder: Path) -> None:
    import torch
    from diffusers import DiffusionPipeline

    chosen = StrategyConfig(painter="diffusers", painter_model=str(pipeline_folder), painter_steps=2)
    small = replace(CONFIG, height_px=32, width_px=48)
    picture = PAINTERS["diffusers"](chosen)("anna waves.", Scene("x"), small)
    pipeline: Any = DiffusionPipeline.from_pretrained(pipeline_folder)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "anna waves.", height=32, width=48, num_inference_steps=2, generator=torch.Generator().manual_seed(5)
    ).images[0]
    assert np.array_equal(picture, np.asarray(expected))
    odd = PAINTERS["diffusers"](chosen)("anna waves.", Scene("x"), replace(small, height_px=24))
    assert odd.shape == (24, 48, 3)


def test_what_is_no_pipeline_is_named(tmp_path: Path) -> None:
    chosen = StrategyConfig(painter="diffusers", painter_model=str(tmp_path))
    with pytest.raises(InputError, match=r"strategy\.painter_model=.*strategy\.painter=collage"):
        PAINTERS["diffusers"](chosen)("anna", Scene("x"), CONFIG)
