"""What of a video is known before it is drawn: a first frame's picture, or latent frames that are given clean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig

if TYPE_CHECKING:
    from pipeline.generate import Scene
    from pipeline.model import Model


@dataclass(frozen=True, eq=False)
class Start:
    """places: i64[n], the latent frames that are given clean, and latents: f32[1,C,n,h,w], what they hold;
    channels, image: as in ``families.contract.Encoded``, of a model that reads a picture."""

    places: torch.Tensor
    latents: torch.Tensor
    channels: torch.Tensor | None = None
    image: torch.Tensor | None = None

    def put(self, latents: torch.Tensor) -> None:
        """Writes the clean frames into f32[1,C,t,h,w], in place."""
        latents[:, :, self.places] = self.latents


def start(model: Model, scene: Scene, config: GenerateConfig, device: torch.device) -> Start:
    """What a scene gives of its video.

    Raises:
        InputError: a picture of another size; none where the model cannot do without; frames given clean to a model
            without a noise level per latent frame; so many that nothing is left to draw.
    """
    outline, grid = model.family.outline, model.family.grid
    num_latents = grid.size(config.num_frames, config.height_px, config.width_px)[0]
    nothing = torch.zeros(1, model.family.latent_channels, 0, 1, 1, device=device)
    nowhere = torch.zeros(0, dtype=torch.long, device=device)
    first = scene.history if scene.anchor is None else scene.anchor[None]
    if first is None and scene.ending is None and not outline.pictured:
        return Start(nowhere, nothing)
    _check(model, scene, config)
    if outline.pictured:
        assert first is not None
        encoded = model.family.encode(_video(first, device).expand(1, 3, config.num_frames, -1, -1))
        return Start(nowhere, nothing, encoded.channels, encoded.image)
    places, parts = [], []
    if first is not None:
        encoded = model.family.encode(_video(first, device))
        places, parts = list(range(encoded.latents.shape[2])), [encoded.latents]
    if scene.ending is not None:
        places, parts = [*places, num_latents - 1], [*parts, _still(model, scene.ending, device)]
    if len(places) >= num_latents or len(set(places)) < len(places):
        raise InputError(
            f"num_frames: {config.num_frames} frames are {num_latents} latent frames, of which {len(places)} are "
            "given, so that nothing is left to draw; ask for more frames, or give fewer"
        )
    return Start(torch.tensor(places, device=device), torch.cat(parts, 2))


def check_clean_frames(model: Model, what: str) -> None:
    """Raise InputError where latent frames cannot be given clean; ``what`` would give them."""
    if not model.family.outline.anchors:
        raise InputError(
            f"{what} gives latent frames clean, which takes a noise level per latent frame; this model "
            f"({model.config.family.name}) has one for the whole video; tiny, Wan 2.2 TI2V and Wan text-to-video "
            "models trained with model.noise.anchor have it"
        )


def _check(model: Model, scene: Scene, config: GenerateConfig) -> None:
    outline, wanted = model.family.outline, (config.height_px, config.width_px, 3)
    if scene.history is not None or scene.ending is not None:
        check_clean_frames(model, "history or ending")
    if scene.anchor is not None and scene.history is not None:
        raise InputError("first frame: an anchor and a history came; a history has its own first frame")
    pictures = {"first frame": scene.anchor, "ending": scene.ending}
    if scene.history is not None:
        pictures = {"history": scene.history[0], "ending": scene.ending}
    needed = "first frame" if outline.pictured else ""
    for name, picture in pictures.items():
        if (picture is None and name == needed) or (picture is not None and picture.shape != wanted):
            came = "none" if picture is None else f"one of {picture.shape[1]}x{picture.shape[0]}"
            raise InputError(
                f"{name}: {came} came; this model takes an RGB picture of the video's size, "
                f"{config.width_px}x{config.height_px}; give --anchor"
            )
    if scene.anchor is not None and not (outline.pictured or outline.anchors):
        raise InputError("first frame: this model is given text alone; leave --anchor out")


def _video(frames: U8, device: torch.device) -> torch.Tensor:
    """u8[T,H,W,3] to f32[1,3,T,H,W] in [-1,1]."""
    return (torch.from_numpy(frames.copy()).to(device).float() / 127.5 - 1).permute(3, 0, 1, 2)[None]


def _still(model: Model, picture: U8, device: torch.device) -> torch.Tensor:
    """f32[1,C,1,h,w]: a latent frame of a video that stands still at a picture, other than its first, which a
    causal codec makes of one frame alone: its frames, and those before that it sees, show the picture."""
    num_frames = 1 + 2 * model.family.grid.frames
    video = _video(picture[None], device).expand(1, 3, num_frames, -1, -1)
    return model.family.encode(video).latents[:, :, -1:]
