"""Networks from disk to figures: what the library's own loaders and a plain loop say of the same frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.records import U8, InputError
from pipeline.judging.video.clip import load_clip
from pipeline.judging.video.networks import image_network, video_network
from pipeline.judging.video.watch import Asked, VideoJudge, spaced
from tests.plain_frechet import plain


def video(seed: int, num_frames: int = 9) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 40, 64, 3), np.uint8)


def show(judge: VideoJudge, frames: U8, *, prompt: str = "", real: bool = False) -> dict[str, float]:
    """The frames in uneven chunks, as a decoder gives them."""
    watch = judge.watch("video", len(frames), prompt, real=real)
    for chunk in np.split(frames, [2, 3, 7]):
        watch.see(chunk)
    return watch.figures()


def test_clip_score_with_the_models_own_loss_arithmetic(networks: Path) -> None:
    """transformers' CLIPModel gives 100-fold nothing: its logits are cosine times exp(logit_scale)."""
    from PIL import Image
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    frames, prompt = video(1), "a man walks"
    judge = VideoJudge(Asked(clip=str(networks / "clip"), frames=4))
    model = CLIPModel.from_pretrained(networks / "clip").eval()
    pictures = [Image.fromarray(frames[at]) for at in (0, 3, 5, 8)]
    pixels = CLIPImageProcessorPil.from_pretrained(networks / "clip")(pictures, return_tensors="pt")
    words = CLIPTokenizer.from_pretrained(networks / "clip")([prompt], return_tensors="pt")
    with torch.no_grad():
        logits = model(**pixels, **words).logits_per_image[:, 0] / model.logit_scale.exp()
    expected = float((100 * logits.clamp(min=0)).mean())
    assert show(judge, frames, prompt=prompt)["clip_score"] == pytest.approx(expected, abs=1e-3)
    turned = show(judge, np.ascontiguousarray(frames[..., ::-1]), prompt=prompt)["clip_score"]
    assert abs(turned - expected) > 0.05  # BGR is another number
    assert "clip_score" not in show(judge, frames)  # nothing to compare with


def test_long_words_are_cut_and_a_missing_clip_is_named(networks: Path) -> None:
    clip = load_clip(str(networks / "clip"))
    assert clip.text_features("word " * 200).shape == (1, 16)
    with pytest.raises(InputError, match=r"CLIP 'no/where.*give a folder of transformers' layout"):
        load_clip("no/where/at/all")


def test_fid_and_fvd_of_videos_against_a_plain_loop(networks: Path) -> None:
    names = f"torchscript:{networks / 'images.pt'}", f"torchscript:{networks / 'videos.pt'}"
    judge = VideoJudge(Asked(fid=names[0], fvd=names[1], frames=3, window=4))
    real, made = [video(seed) for seed in range(12)], [video(seed) // 2 for seed in range(20, 30)]
    for one in real:
        show(judge, one, real=True)
    figures = [show(judge, one) for one in made]
    found = judge.distances()
    images, videos = image_network(names[0]), video_network(names[1])
    pictured = [np.concatenate([images(one[[0, 4, 8]]).numpy() for one in side]) for side in (real, made)]
    windowed = [
        np.concatenate([videos(one[at : at + 4]).numpy() for one in side for at in (0, 4)])
        for side in (real, made)
    ]
    assert found["fid"] == pytest.approx(plain(*pictured), rel=1e-4)
    assert found["fvd"] == pytest.approx(plain(*windowed), rel=1e-4)
    assert (judge.fid.num_generated, judge.fvd.num_generated) == (30, 20)
    assert all("cuts" in one for one in figures)


def test_published_files_are_asked_for_features(networks: Path) -> None:
    frames = video(0, 4)
    plain_network = torch.jit.load(str(networks / "images.pt"))
    with torch.no_grad():
        inside = plain_network(torch.from_numpy(frames.transpose(0, 3, 1, 2).copy()), return_features=True)
    assert torch.equal(image_network(f"torchscript:{networks / 'images.pt'}")(frames), inside)
    assert video_network(f"videomae:{networks / 'videomae'}")(frames).shape == (1, 16)
    assert image_network(f"clip:{networks / 'clip'}")(frames).shape == (4, 16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet", "--fid: came 'resnet'; give one of torchscript:WHERE, inception, clip:WHERE"),
        ("clip", "say which after the colon, a file or a hub's id"),
        ("torchscript:/none.pt", "no such file; download it first"),
        ("inception", "torch-fidelity is not installed; pip install torch-fidelity, or"),
    ],
)
def test_networks_that_are_none(name: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        image_network(name)
    assert expected in str(caught.value)


def test_files_and_windows_that_do_not_fit(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_text("no network")
    with pytest.raises(InputError, match="is no TorchScript"):
        image_network(f"torchscript:{tmp_path / 'x.pt'}")
    with pytest.raises(InputError, match="windows of 4"):
        video_network(f"videomae:{networks / 'videomae'}")(video(0, 5))
    judge = VideoJudge(Asked(fvd=f"torchscript:{networks / 'videos.pt'}", window=16))
    with pytest.raises(InputError, match=r"--fvd-frames: short\.mp4 has 9 frames, a window takes 16"):
        judge.watch("short.mp4", 9)


def test_spaced() -> None:
    assert spaced(9, 4) == [0, 3, 5, 8]
    assert spaced(3, 16) == [0, 1, 2]
    assert spaced(0, 4) == []
