"""Who the model is told of: the bank alone, both frequency paths, locked tokens, or, without these, nobody."""

from __future__ import annotations

from dataclasses import replace

from data_prep.records import U8, InputError
from pipeline.config import GenerateConfig
from pipeline.generate import Scene
from pipeline.strategies.studio import Draw, Studio


class Bank:
    """``Strategy`` of ours: the bank's tokens, read by attention that is routed per character; of a model with the
    low-frequency path that path too, without which it was not trained."""

    def check(self, studio: Studio, scene: Scene, config: GenerateConfig) -> None:
        """It works for every model."""

    def around(self, studio: Studio, draw: Draw) -> Draw:
        """Scenes come with a bank's tokens."""
        return draw


class TwoPaths(Bank):
    """``Strategy``: ConsisID's two frequency paths (arXiv 2411.17440, section 3.2): the low one, a picture and
    drawn landmarks of each character beside the noisy latents, and the high one in attention, which here is ours.
    Training takes them coarse to fine by model.schedule."""

    def check(self, studio: Studio, scene: Scene, config: GenerateConfig) -> None:
        """Raise InputError for a model without the low path, or a scene without cast."""
        if studio.model.identity.low_frequency is None:
            raise InputError(
                "strategy two-paths: this model has no low-frequency path; train one with "
                "model.identity.low_frequency=true and, coarse to fine, model.schedule.coarse=0.3 "
                "model.schedule.fade_in=0.2, or take strategy.name=bank"
            )
        if scene.pictures is None:
            raise InputError("strategy two-paths: it reads a picture of each; name characters with --cast")


class Lock(Bank):
    """``Strategy``: characters whose tokens stay as they are whatever else is trained: model.adapter.lock keeps
    them bit for bit and trains attention to read them, as the references of Gen-4.5 are described to stay. The
    lock is kept in the bank; see ``identity.lock``."""

    def check(self, studio: Studio, scene: Scene, config: GenerateConfig) -> None:
        """Raise InputError for a cast that is not locked, or none."""
        if scene.tokens is None or scene.unlocked is None:
            raise InputError("strategy lock: tokens are locked in a bank; name characters of one with --cast")
        if scene.unlocked:
            raise InputError(
                f"strategy lock: the tokens of {', '.join(scene.unlocked)} are not locked; train from this run "
                f"with base=EXPORT model.adapter.lock=[{','.join(scene.unlocked)}], or take strategy.name=bank"
            )


class Nobody(Bank):
    """What is inside a mix without bank, lock or two-paths: the prompt alone speaks of the cast."""

    def around(self, studio: Studio, draw: Draw) -> Draw:
        """The scene without tokens and pictures."""

        def alone(scene: Scene, config: GenerateConfig) -> U8:
            return draw(replace(scene, tokens=None, pictures=None), config)

        return alone
