"""The networks whose features FID, FVD and CLIPScore are taken of: one seam, and where each is loaded from.

A network is named ``KIND`` or ``KIND:WHERE``. None of their weights come with castbank: a hub's id or a file on
the user's machine is given, and a small one in the same layout goes through the same lines.

- ``torchscript:FILE`` is how the networks of published FID and FVD figures are passed around: NVIDIA's
  ``inception-2015-12-05.pt`` (StyleGAN2-ADA; the original Inception of Heusel et al. 2017) and
  ``i3d_torchscript.pt`` (StyleGAN-V; the I3D on Kinetics-400 of Unterthiner et al. 2018). Both are asked for
  features, not logits.
- ``inception`` is the same Inception in torch-fidelity's port, which torchmetrics fetches (``pip install
  torch-fidelity``); pooled, 2048 wide.
- ``clip:ID`` (transformers; ``openai/clip-vit-large-patch14``) for FID, as CLIP-FID of Kynkäänniemi et al. 2023.
- ``videomae:ID`` (transformers; ``MCG-NJU/videomae-base-finetuned-kinetics``) for FVD, which Ge et al. 2024 (arXiv
  2404.12391) find less blind to motion than I3D.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from data_prep.records import U8, InputError
from pipeline.judging.video.clip import load_clip, place


class ImageNetwork(Protocol):
    """Frames u8[n,H,W,3] RGB to features f32[n,D]."""

    def __call__(self, frames: U8) -> torch.Tensor: ...


class VideoNetwork(Protocol):
    """A window of frames u8[T,H,W,3] RGB to one row of features f32[1,D]."""

    def __call__(self, frames: U8) -> torch.Tensor: ...


class ScriptedImages:
    """A TorchScript network of images u8[n,3,H,W]."""

    def __init__(self, where: str) -> None:
        self._network, self._words = _scripted(where)

    @torch.no_grad()
    def __call__(self, frames: U8) -> torch.Tensor:
        images = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        return _rows(self._network(images.to(place()), **self._words), len(frames))


class ScriptedVideos:
    """A TorchScript network of videos f32[1,3,T,H,W] in 0..255."""

    def __init__(self, where: str) -> None:
        self._network, self._words = _scripted(where)

    @torch.no_grad()
    def __call__(self, frames: U8) -> torch.Tensor:
        video = torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))[None].float()
        return _rows(self._network(video.to(place()), **self._words), 1)


class Inception:
    """torch-fidelity's InceptionV3 as torchmetrics runs it: 299 px, 2048 pooled features."""

    def __init__(self, _where: str) -> None:
        try:
            from torchmetrics.image.fid import NoTrainInceptionV3

            self._network = NoTrainInceptionV3("inception-v3-compat", ["2048"]).to(place())
        except (ImportError, NameError) as error:
            raise InputError(
                "network 'inception': torch-fidelity is not installed; pip install torch-fidelity, or give "
                "torchscript:inception-2015-12-05.pt"
            ) from error

    @torch.no_grad()
    def __call__(self, frames: U8) -> torch.Tensor:
        images = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
        return _rows(self._network(images.to(place())), len(frames))


class ClipImages:
    """CLIP's image embeddings before they are normalised."""

    def __init__(self, where: str) -> None:
        self._clip = load_clip(where)

    def __call__(self, frames: U8) -> torch.Tensor:
        return self._clip.image_features(frames)


class VideoMae:
    """VideoMAE's last hidden states, averaged over the tokens; it takes as many frames as it was trained with."""

    def __init__(self, where: str) -> None:
        from transformers import VideoMAEModel
        from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

        try:
            self._network = VideoMAEModel.from_pretrained(where).eval().to(place())
            self._processor = VideoMAEImageProcessorPil.from_pretrained(where)
        except (OSError, ValueError) as error:
            raise InputError(f"network 'videomae:{where}': {_first_line(error)}") from error

    @torch.no_grad()
    def __call__(self, frames: U8) -> torch.Tensor:
        wanted = int(self._network.config.num_frames)
        if len(frames) != wanted:
            raise InputError(f"--fvd-frames: came {len(frames)}; this VideoMAE takes windows of {wanted}")
        pixels = self._processor(list(frames), return_tensors="pt")["pixel_values"]
        return _rows(self._network(pixel_values=pixels.to(place())).last_hidden_state.mean(1), 1)


IMAGE_NETWORKS: dict[str, Callable[[str], ImageNetwork]] = {
    "torchscript": ScriptedImages,
    "inception": Inception,
    "clip": ClipImages,
}
VIDEO_NETWORKS: dict[str, Callable[[str], VideoNetwork]] = {
    "torchscript": ScriptedVideos,
    "videomae": VideoMae,
}


def image_network(name: str) -> ImageNetwork:
    """The network of this name, for FID; raises InputError for an unknown kind or where nothing loads."""
    kind, where = _parted("--fid", name, tuple(IMAGE_NETWORKS))
    return IMAGE_NETWORKS[kind](where)


def video_network(name: str) -> VideoNetwork:
    """The same for FVD."""
    kind, where = _parted("--fvd", name, tuple(VIDEO_NETWORKS))
    return VIDEO_NETWORKS[kind](where)


def _parted(option: str, name: str, kinds: tuple[str, ...]) -> tuple[str, str]:
    kind, _, where = name.partition(":")
    if kind not in kinds:
        allowed = ", ".join(one if one == "inception" else f"{one}:WHERE" for one in kinds)
        raise InputError(f"{option}: came {name!r}; give one of {allowed}")
    if not where and kind != "inception":
        raise InputError(f"{option}: came {name!r}; say which after the colon, a file or a hub's id")
    return kind, where


def _scripted(where: str) -> tuple[Any, dict[str, bool]]:
    """The network in a file, and the words that the published ones want so as to give features."""
    if not Path(where).is_file():
        raise InputError(f"network 'torchscript:{where}': no such file; download it first, and give its path")
    try:
        network: Any = torch.jit.load(where, map_location=place()).eval()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise InputError(
            f"network 'torchscript:{where}': is no TorchScript ({_first_line(error)})"
        ) from error
    known = {argument.name for argument in network.forward.schema.arguments}
    return network, {word: True for word in ("rescale", "resize", "return_features") if word in known}


def _rows(features: Any, wanted: int) -> torch.Tensor:
    """f32[wanted,D] on the host; raises InputError where the network gives something else."""
    if not isinstance(features, torch.Tensor) or len(features) != wanted:
        raise InputError("network: it gives no row of features for each picture or video; give another")
    return features.reshape(wanted, -1).float().cpu()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
