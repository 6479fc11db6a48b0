"""What the proof compares: how each row is trained and drawn. A new row is one entry of ``ROWS``."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.proving.casting import PEOPLE


@dataclass(frozen=True)
class Row:
    """title: what is different from ``full``. train: keys of castbank train over the common ones; of: a row whose
    trained run this one draws from, or, with ``train``, starts from; else it starts from the common base. draw:
    keys of castbank generate. told: whether the cast is given; layout: whether faces' places are; added: whether
    the added character is trained and asked for; dear: left out unless asked for by name."""

    name: str
    title: str
    train: tuple[str, ...] = ()
    of: str = ""
    draw: tuple[str, ...] = ()
    told: bool = True
    layout: bool = False
    added: bool = False
    dear: bool = False

    @property
    def trains(self) -> bool:
        """Whether it has a training of its own."""
        return not self.of or bool(self.train)


FULL = "full"
NONE = "none"

ROWS = (
    Row(
        NONE,
        "no identity input",
        ("model.noise.cast_drop=1.0", "model.adapter.train_identity=false"),
        told=False,
    ),
    Row("pooled", "one pooled identity", ("model.identity.binding=pooled",)),
    Row("joint", "bank without routing", ("model.identity.binding=joint",)),
    Row(FULL, "bank with routing, all losses"),
    Row("no-mask", "without the mask loss", ("model.losses.mask=0",)),
    Row("no-routing-loss", "without the routing loss", ("model.losses.routing=0",)),
    Row("own-faces", "without cross-face: the sample's own faces alone", ("model.noise.cross_face=0",)),
    Row("outside-faces", "outside references alone", ("model.noise.cross_face=1",)),
    Row(
        "identity-loss",
        "with the identity loss, 0.05",
        ("model.losses.identity=0.05", "data.cache='off'"),
        dear=True,
    ),
    Row(
        "two-paths",
        "ConsisID's two paths (f)",
        ("model.identity.low_frequency=true",),
        draw=("strategy.name=two-paths",),
    ),
    Row(
        "anchored",
        "a collage as first frame, places given, FVG's (e), and the bank",
        ("model.noise.anchor=0.5",),
        draw=("strategy.name=anchored+bank",),
        layout=True,
    ),
    Row(
        "anchor-alone",
        "the same without the bank",
        of="anchored",
        draw=("strategy.name=anchored",),
        layout=True,
    ),
    Row("tracked", "attention along tracked faces (d)", of=FULL, draw=("strategy.name=tracked+bank",)),
    Row(
        "context",
        "long context, frames of before kept clean (a): four frames in windows of two",
        of="anchored",
        draw=(
            "strategy.name=context+bank",
            "num_frames=4",
            "strategy.window=2",
            "strategy.history=1",
        ),
    ),
    Row("layout", "faces' places given", of=FULL, layout=True),
    Row("strength-0", "strength 0", of=FULL, draw=("strength=0",)),
    Row("strength-0.4", "strength 0.4", of=FULL, draw=("strength=0.4",)),
    Row("strength-0.7", "strength 0.7", of=FULL, draw=("strength=0.7",)),
    Row("strength-0.85", "strength 0.85", of=FULL, draw=("strength=0.85",)),
    Row("strength-1.2", "strength 1.2", of=FULL, draw=("strength=1.2",)),
    Row(
        "added",
        "one more character by LoRA, and the old ones after it",
        ("model.adapter.kind=lora", "model.adapter.rank=16"),
        of=FULL,
        added=True,
    ),
    Row(
        "added-locked",
        "the same with the old ones' tokens locked (c)",
        (
            "model.adapter.kind=lora",
            "model.adapter.rank=16",
            f"model.adapter.lock=[{', '.join(PEOPLE)}]",
        ),
        of=FULL,
        draw=("strategy.name=lock",),
        added=True,
    ),
)
