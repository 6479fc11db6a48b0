"""Videos of a trained row and what judging sees in them, in processes of their own: cores share the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.records import U8
from jobs import config as configs
from jobs.proving.casting import Asked
from jobs.proving.footage import CENTRES_PX, FACE_PX
from jobs.proving.scoring import VideoVerdict, verdict_of
from pipeline.config import GenerateConfig
from pipeline.generate import LoadedRun
from pipeline.judging.galleries import Gallery

PACKS = ("embedded_alt", "embedded")  # the first one took no part in training and decides
FRAME_PX = (960, 480)  # what windows show of the footage's frames


@dataclass(frozen=True)
class Order:
    """What one process draws. run: whose export; asked: one scene; seeds: a video for each; keys: of castbank
    generate; names: character id to name in the shards; keep: where a contact sheet of the first video goes."""

    run: Path
    shards: Path
    names: tuple[tuple[str, str], ...]
    asked: Asked
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    told: bool
    layout: bool
    keep: Path


def carry_out(order: Order) -> list[VideoVerdict]:
    """Draws, judges and keeps the first video as a picture."""
    from data_prep.atomic import write_atomic
    from data_prep.faces import analyser_for
    from jobs.train_pictures import to_png
    from pipeline.generate import contact_sheet, scene_of
    from pipeline.judging.sight import see
    from pipeline.strategies.drawing import draw

    loaded, galleries = _loaded(order.run), galleries_of(order.shards, order.names)
    config = configs.load(GenerateConfig, None, order.keys, _usual(order.run))
    scene = scene_of(loaded, order.asked.prompt, order.asked.names if order.told else ())
    if order.layout:
        scene = replace(scene, layout=face_layout(order.asked, (config.height_px, config.width_px)))
    verdicts = []
    for seed in order.seeds:
        frames = draw(loaded.model, scene, replace(config, seed=seed)).frames
        if seed == order.seeds[0]:
            write_atomic(order.keep, to_png(contact_sheet(frames)))
        seen = see(frames, analyser_for("embedded"), PACKS)
        verdicts.append(verdict_of(seen, galleries, order.asked, seed))
    return verdicts


def face_layout(asked: Asked, size_px: tuple[int, int]) -> U8:
    """u8[H,W]: an upright oval in each place, the k-th slot's where its character belongs; as large as a face of
    the footage and as far apart."""
    height, width = size_px
    num = len(asked.cast)
    tall = float(np.mean(FACE_PX[num])) / FRAME_PX[1] * height
    y, x = np.mgrid[:height, :width] + 0.5
    layout = np.zeros(size_px, np.uint8)
    for slot, place in enumerate(asked.slots, 1):
        centre = CENTRES_PX[num][place] / FRAME_PX[0] * width
        inside = ((x - centre) / (0.37 * tall)) ** 2 + ((y - height / 2 - 1) / (0.5 * tall)) ** 2 <= 1
        layout[inside] = slot
    return layout


@lru_cache(1)
def galleries_of(shards: Path, names: Sequence[tuple[str, str]]) -> tuple[Gallery, ...]:
    """Everybody's references in the shards, those that a bank would take, by each recogniser."""
    from data_prep.shards import ShardSet
    from pipeline.identity.enrol import gather_references
    from pipeline.judging.galleries import gallery

    opened = ShardSet.open(shards)
    found = gather_references(opened.read(index) for index in range(len(opened)))
    crops = {name: np.stack([image for _, image in found[one].chosen()]) for one, name in names}
    return tuple(gallery(pack, crops) for pack in PACKS)


@lru_cache(1)
def _loaded(run: Path) -> LoadedRun:
    from pipeline.generate import load_run

    return load_run(run)


def _usual(run: Path) -> dict[str, object]:
    """The size that the run was trained at."""
    from dataclasses import asdict

    from pipeline.exports.export import last_seen

    seen = last_seen(run)
    assert seen is not None, "a run of this version says what it has seen"
    return asdict(seen)
