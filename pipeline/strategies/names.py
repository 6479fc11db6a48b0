"""The consistency strategies by name: what each is modelled on, needs and costs, and which go together.

Nothing heavy is imported here, so that ``--help`` can say all of it.
"""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass
from typing import Literal

from data_prep.records import InputError

TEXT_WIDTH = 118  # of help

Layer = Literal["first frame", "time", "attention", "tokens", "identity"]
LAYERS: tuple[Layer, ...] = (
    "first frame",
    "time",
    "attention",
    "tokens",
    "identity",
)  # from outside to inside


@dataclass(frozen=True)
class About:
    """layer: what of a drawing it decides, of which a mix has one at most; modelled_on: what the field does so;
    needs: of the model, beside a bank; cost: in steps of the sampler, where n is steps and w the windows."""

    layer: Layer
    what: str
    modelled_on: str
    needs: str
    cost: str


ABOUT: dict[str, About] = {
    "bank": About(
        "identity",
        "the bank's tokens, read by attention that is routed per character",
        "ours",
        "nothing",
        "n",
    ),
    "two-paths": About(
        "identity",
        "a picture and landmarks of each character beside the noise, and its tokens in attention",
        "ConsisID (arXiv 2411.17440)",
        "model.identity.low_frequency in training",
        "n",
    ),
    "lock": About(
        "tokens",
        "the bank, of characters whose tokens no later training has moved",
        "Gen-4.5's references, as described",
        "model.adapter.lock in training",
        "n",
    ),
    "tracked": About(
        "attention",
        "tokens of a face read that face in the other frames, others less or not at all",
        "Kling 1.6's face-aware attention, as described",
        "tiny or wan; a layout, or faces that a first look finds",
        "n, and look_steps without a layout",
    ),
    "context": About(
        "time",
        "a long video in windows, each of which begins with clean frames of what is there",
        "Sora 2, as described; SkyReels-V2 (arXiv 2504.13074)",
        "a noise level per frame: tiny, Wan TI2V",
        "w times n",
    ),
    "keyframes": About(
        "time",
        "keyframes as one short video first, then the frames between each two",
        "Veo 3, as described",
        "a noise level per frame: tiny, Wan TI2V",
        "w times n, and n of the keyframes",
    ),
    "anchored": About(
        "first frame",
        "the prompt rewritten to its first frame, that frame drawn as a picture, then the video from it",
        "FVG (arXiv 2512.16371)",
        "a first frame: tiny, Wan TI2V, image-to-video",
        "n (FVG: 15 do for 50), and painter_steps",
    ),
}


def parse(name: str) -> tuple[str, ...]:
    """The strategies of a mix such as ``anchored+bank``, from the outermost layer to the innermost.

    Raises:
        InputError: an unknown name, one that comes twice, or two of one layer.
    """
    parts = [part.strip() for part in name.split("+")]
    for part in parts:
        if part not in ABOUT:
            near = difflib.get_close_matches(part, ABOUT, 1, 0.6)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(
                f"strategy.name={name}: {part!r} is none; {hint}there are {', '.join(ABOUT)}, or several with +"
            )
    for layer in LAYERS:
        same = [part for part in parts if ABOUT[part].layer == layer]
        if len(same) > 1:
            others = ", ".join(other for other, about in ABOUT.items() if about.layer == layer)
            raise InputError(
                f"strategy.name={name}: {' and '.join(same)} both decide the {layer}; a mix takes one of {others}"
            )
    return tuple(sorted(parts, key=lambda part: LAYERS.index(ABOUT[part].layer)))


def describe() -> str:
    """A paragraph of lines for each strategy, for help."""
    lines = []
    for name, about in ABOUT.items():
        origin = about.modelled_on if about.modelled_on == "ours" else f"like {about.modelled_on}"
        said = f"{about.what} ({origin}); needs {about.needs}; steps: {about.cost}"
        lines += textwrap.wrap(said, TEXT_WIDTH, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12)
    return "\n".join(lines)
