"""What can be drawn, known before a model is loaded: strengths, sizes, who is there and how many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.records import InputError
from pipeline.config import GenerateConfig

if TYPE_CHECKING:
    from pipeline.families.contract import Outline


def check_strength(strength: float) -> None:
    """Raise InputError for a strength that identity cannot have."""
    if not 0 <= strength < math.inf:
        raise InputError(
            f"strength: {strength} came, it must be at least 0: 0 is nobody, 0.7 to 0.85 the useful band of large "
            "models, 1 as trained"
        )


def outline_of(run: Path) -> tuple[Outline, int]:
    """What a run's model can make, and how many characters at once, without its weights."""
    from pipeline import model as models
    from pipeline.families import family_type

    config = models.read_config(run / "export" if (run / "export").is_dir() else run)
    return family_type(config.family.name).look(config.family), config.identity.max_cast


def check_size(config: GenerateConfig, outline: Outline) -> None:
    """Raise InputError for a video that the family cannot make."""
    outline.grid.size(config.num_frames, config.height_px, config.width_px)


def check_anchor(outline: Outline) -> None:
    """Raise InputError for a model that takes no first frame."""
    if not (outline.anchors or outline.pictured):
        raise InputError("anchor: this model is given text alone; leave it out")


def check_cast(names: Sequence[str], known: Sequence[str], max_cast: int) -> None:
    """Raise InputError for a cast that is too large, or with somebody unknown."""
    if len(names) > max_cast:
        raise InputError(f"cast: {len(names)} characters, but identity.max_cast is {max_cast}; name fewer")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"cast: {', '.join(unknown)} not in the bank; it holds {', '.join(known) or 'nobody'}"
        )
    if len(set(names)) < len(names):
        raise InputError(f"cast: {', '.join(names)}; name each character once")
