"""Anchored generation: prompt to first frame, first frame to picture, picture to video.

Factorized video generation (FVG, arXiv 2512.16371): a text model rewrites the prompt to the caption of its first
frame, an image model draws that, and the video is drawn from it, its clean latent at noise level 0. What the video
model need not work out it need not spend steps on: 15 do for 50 there (``steps=15``). Ours: the two defaults that
need no model, rules and a collage of the bank's own pictures, and a cast's places by its layout.
"""

from __future__ import annotations

from dataclasses import replace

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig
from pipeline.generate import Scene
from pipeline.strategies.painters import PAINTERS
from pipeline.strategies.rewriters import REWRITERS
from pipeline.strategies.studio import Draw, Studio


class Anchored:
    """``Strategy``: the first frame is drawn first. One that a scene brings is taken as it is."""

    def check(self, studio: Studio, scene: Scene, config: GenerateConfig) -> None:
        """Raise InputError for a model that takes no first frame."""
        outline = studio.model.family.outline
        if not (outline.anchors or outline.pictured):
            raise InputError(
                f"strategy anchored: this {studio.model.config.family.name} model is given text alone; tiny, Wan "
                "TI2V and image-to-video models take a first frame; leave anchored out of strategy.name"
            )
        REWRITERS[config.strategy.rewriter](config.strategy, studio.key)

    def around(self, studio: Studio, draw: Draw) -> Draw:
        """The video from its anchor."""

        def from_anchor(scene: Scene, config: GenerateConfig) -> U8:
            if scene.anchor is None:
                chosen = config.strategy
                caption = REWRITERS[chosen.rewriter](chosen, studio.key)(scene.prompt).strip()
                if not caption:
                    raise InputError(
                        f"strategy.rewriter={chosen.rewriter}: it answered nothing to the prompt; take "
                        "strategy.rewriter=rules"
                    )
                picture = PAINTERS[chosen.painter](chosen)(caption, scene, config)
                studio.notes["anchor_caption"] = caption
                studio.pictures["anchor"] = picture
                scene = replace(scene, anchor=picture)
            return draw(scene, config)

        return from_anchor
