"""Videos of casts that are trained on, beside the clips they come from: at the end, and while training goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from data_prep.atomic import write_atomic
from data_prep.decode import decode_mp4
from data_prep.records import U8
from data_prep.video.encode import encode_mp4
from pipeline.config import GenerateConfig, TrainConfig
from pipeline.data.features import OUTSIDE
from pipeline.data.samples import Item, Samples
from pipeline.data.stream import collate
from pipeline.generate import Scene, contact_sheet, generate
from pipeline.identity.bank import CastPictures
from pipeline.model import Model
from pipeline.ranks.rank import Rank
from pipeline.training.engine import Engine

NUM_STEPS = 20  # of a sample video


@dataclass(frozen=True)
class Shown:
    """Reported by the first rank: a sample video or picture in the run's folder, for the tracker."""

    path: Path


class Drawing:
    """A watch (see ``trainer``) that draws the casts of some samples by the references that they were given."""

    def __init__(self, config: TrainConfig, model: Model, samples: Samples, rank: Rank) -> None:
        """``samples``: not read from a cache, as the real clips are shown beside."""
        self._config, self._model, self._samples, self._rank = config, model, samples, rank

    def due(self, step: int) -> bool:
        """Not at the last step, after which the bank's characters are drawn."""
        every = self._config.tracking.sample_every
        return bool(every) and step % every == 0 and step < self._config.num_steps

    def run(self, engine: Engine, step: int, beat: Callable[[], None]) -> Mapping[str, torch.Tensor]:
        """Draw, on the first rank, or on all where each has only a part of the weights."""
        if self._rank.index > 0 and self._config.engine.zero_stage < 3:
            return {}
        self._model.eval()
        try:
            self._draw(engine, Path(self._config.run) / "samples" / f"step-{step:08d}", beat)
        finally:
            self._model.train()
        return {}

    @torch.no_grad()
    def _draw(self, engine: Engine, folder: Path, beat: Callable[[], None]) -> None:
        for index in chosen(self._config, self._samples):
            item = self._samples.load(index, index)
            batch = collate([item]).to(engine.device)
            with engine.precision():
                tokens = self._model.identity(batch.references, batch.reference_mask)[0]
                pictures = None
                if batch.pictures is not None and batch.landmarks is not None:
                    pictures = CastPictures(batch.pictures[0, :, OUTSIDE], batch.landmarks[0, :, OUTSIDE])
                drawing = Drawn(item, tokens, names_of(self._config, item), pictures)
                video = drawing.video(self._model, lambda *_: beat())
            if self._rank.index == 0:
                for path in drawing.write(video, folder):
                    self._rank.report(Shown(path))


def chosen(config: TrainConfig, samples: Samples) -> Sequence[int]:
    """Indices of the samples that are drawn, spread over all."""
    count = min(config.tracking.num_samples, len(samples))
    return [k * len(samples) // count for k in range(count)]


def names_of(config: TrainConfig, item: Item) -> list[str]:
    """The cast's names in the bank."""
    return [config.names.get(character, character) for character in item.cast]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A sample, with its video, whose caption and cast are drawn. tokens: f32[N,K,C] by slot; names, pictures: the
    cast's."""

    item: Item
    tokens: torch.Tensor
    names: Sequence[str]
    pictures: CastPictures | None = None

    @property
    def settings(self) -> GenerateConfig:
        """Of the sample's own size."""
        assert self.item.video is not None
        num_frames, height_px, width_px, _ = self.item.video.shape
        return GenerateConfig(steps=NUM_STEPS, num_frames=num_frames, height_px=height_px, width_px=width_px)

    def video(self, model: Model, progress: Callable[[str, int, int], None] = lambda *_: None) -> U8:
        """What the model makes of it, u8[T,H,W,3]."""
        assert self.item.video is not None
        anchor = self.item.video[0] if model.family.outline.pictured else None
        scene = Scene(self.item.caption, self.tokens, anchor=anchor, pictures=self.pictures)
        return generate(model, scene, self.settings, progress)

    def write(self, made: U8, folder: Path) -> list[Path]:
        """The video, a contact sheet with the real clip above, and, beside them, a note that says who should be
        seen, as that of castbank generate does; returns the paths of the first two."""
        folder.mkdir(parents=True, exist_ok=True)
        assert self.item.video is not None
        video, columns = encode_mp4(made, self.settings.fps), len(made)
        real, seen = contact_sheet(self.item.video, columns), contact_sheet(decode_mp4(video), columns)
        note = {"prompt": self.item.caption, "cast": list(self.names), "config": asdict(self.settings)}
        note["video_sha256"] = hashlib.sha256(video).hexdigest()
        paths = [folder / f"{self.item.key}.mp4", folder / f"{self.item.key}.png"]
        text = json.dumps(note, indent=2, ensure_ascii=False)
        write_atomic(folder / f"{self.item.key}.json", text.encode())
        write_atomic(paths[0], video)
        write_atomic(paths[1], to_png(np.concatenate([real, seen])))
        return paths


def to_png(image: U8) -> bytes:
    """u8[H,W,3] RGB as a PNG file."""
    import cv2

    done, data = cv2.imencode(".png", image[..., ::-1])
    assert done
    return bytes(data)
