"""Which shots are good enough to train on: UltraVideo's and NeMo Curator's filters, as presets of the same rules.

Analysis measures (``data_prep.analysis.pictures``), this judges. So another preset or limit needs no second look
at the footage, and with the preset ``off`` every shot's numbers are in the ledger all the same, to choose limits
by. A shot is judged as a whole, since both projects cut their videos into shots first and filter what results.

Where our measure is not theirs: motion is dense optical flow between successive frames, in place of RAFT
(UltraVideo) and of the codec's motion vectors at 2 frames a second (NeMo). UltraVideo's VTSS and VideoCLIP and
NeMo's aesthetic scores need models that are not here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from data_prep.config import QualityConfig
from data_prep.records import F64, AnalysedClip, Decision, FrameMeasures, Shot

Limits = Mapping[str, float]


@dataclass(frozen=True)
class Preset:
    """Limits by field of QualityConfig; a field that is not there is not judged."""

    source: str
    limits: Limits


PRESETS: Mapping[str, Preset] = {
    "off": Preset("measures and drops nothing", {}),
    "ultravideo": Preset(
        "arXiv 2506.13691: a frame is bad with more than 12 % of its pixels above 250 or below 5, a 3 % border "
        "strip darker than 3, or a variance over the colours below 1.2; at most 5 % bad frames, motion 0.1 to 100, "
        "text on at most 2 % of the picture (where a text detector is named)",
        {
            "max_clipped": 0.12,
            "min_border": 3.0,
            "min_colour": 1.2,
            "max_bad_frames": 0.05,
            "min_motion_px": 0.1,
            "max_motion_px": 100.0,
            "max_text": 0.02,
        },
    ),
    "nemo": Preset(
        "NeMo Curator's defaults: sides of 256 px or more, shots of 2 s or more, mean motion of 0.00098 and "
        "0.000001 in the stillest patch of 256 px, both in units of width + height a frame",
        {"min_side_px": 256, "min_shot_s": 2.0, "min_motion": 0.00098, "min_patch_motion": 0.000001},
    ),
    "people": Preset(
        "ours, for people who talk: UltraVideo's exposure, borders and text, no least motion (who talks "
        "hardly moves), black and white allowed, blur below 10 and shots below 1 s dropped",
        {
            "min_side_px": 256,
            "min_shot_s": 1.0,
            "max_clipped": 0.12,
            "min_border": 3.0,
            "max_bad_frames": 0.05,
            "min_sharpness": 10.0,
            "max_motion_px": 100.0,
            "max_text": 0.02,
        },
    ),
}


@dataclass(frozen=True)
class Look:
    """A shot as the rules see it."""

    clip: AnalysedClip
    shot: Shot
    pictures: FrameMeasures
    limits: Limits

    def of(self, field: str) -> F64:
        """What was measured of the shot's frames, without those where it was not."""
        values = getattr(self.pictures, field)[self.shot.start : self.shot.end].astype(np.float64)
        return np.asarray(values[~np.isnan(values)], np.float64)

    def mean(self, field: str) -> float:
        values = self.of(field)
        return float(values.mean()) if len(values) else float("nan")

    def per_size(self, px: float) -> float:
        """In units of the frame's width + height, as NeMo counts motion."""
        return px / (self.clip.width_px + self.clip.height_px)


@dataclass(frozen=True)
class Rule:
    """One number of a shot against one limit, a field of QualityConfig; measure: NaN where there is nothing to
    measure, which passes."""

    name: str
    limit: str
    measure: Callable[[Look], float]

    @property
    def at_most(self) -> bool:
        return self.limit.startswith("max_")

    def breaks(self, value: float, limits: Limits) -> bool:
        if self.limit not in limits:
            return False
        return value > limits[self.limit] if self.at_most else value < limits[self.limit]


def limits_of(config: QualityConfig) -> dict[str, float]:
    """The limits in force: what the configuration says, else (where that is negative) the preset."""
    limits = dict(PRESETS[config.preset].limits)
    names = [field.name for field in fields(config) if field.name.startswith(("min_", "max_"))]
    return limits | {name: value for name in names if (value := getattr(config, name)) >= 0}


def judge(clip: AnalysedClip, config: QualityConfig) -> list[Decision]:
    """One decision for each shot: kept, or dropped by the first rule that it breaks, with the number and the limit;
    ``detail`` has the numbers of all rules."""
    if clip.pictures is None:
        return []
    limits = limits_of(config)
    return [_judged(Look(clip, shot, clip.pictures, limits)) for shot in clip.shots]


def shot_id(clip_id: str, shot: int) -> str:
    """How the ledger names a shot."""
    return f"{clip_id}-s{shot:03d}"


def _judged(look: Look) -> Decision:
    values = {rule.name: rule.measure(look) for rule in RULES}
    told = values | {name: float(measure(look).mean()) for name, measure in BAD_FRAMES.items()}
    detail = ", ".join(f"{name} {value:.4g}" for name, value in told.items() if not np.isnan(value))
    item = shot_id(look.clip.clip.id, look.shot.index)
    broken = next((rule for rule in RULES if rule.breaks(values[rule.name], look.limits)), None)
    if broken is None:
        return Decision(item, "shot", "kept", "select", detail=detail)
    value, limit = (
        f"{values[broken.name]:.4g}",
        f"{'<=' if broken.at_most else '>='} {look.limits[broken.limit]:g}",
    )
    return Decision(item, "shot", "dropped", "select", broken.name, value, limit, detail=detail)


def _bad_frames(look: Look) -> float:
    """Share of the frames that are bad in one way or another."""
    return float(np.any([measure(look) for measure in BAD_FRAMES.values()], axis=0).mean())


def _text(look: Look) -> float:
    return float(max(look.of("text"), default=float("nan")))


def _blur(look: Look) -> float:
    values = look.of("sharpness")
    return float(np.median(values)) if len(values) else float("nan")


def _stillest(look: Look) -> float:
    return look.per_size(float(look.pictures.stillest_px[look.shot.index]))


def _side_px(look: Look) -> float:
    """Of the source as its manifest has it, else of the analysed frames, which are never larger."""
    row = look.clip.clip
    return float(min(row.width_px or look.clip.width_px, row.height_px or look.clip.height_px))


def _seconds(look: Look) -> float:
    """From the first frame's start to the last one's end, which lies a mean step after it."""
    times_s = look.clip.times_s
    step_s = float(times_s[-1]) / max(len(times_s) - 1, 1)
    return round(float(times_s[look.shot.end - 1] - times_s[look.shot.start]) + step_s, 3)  # 2 s are 2 s


_OFF = float("inf")
BAD_FRAMES: Mapping[str, Callable[[Look], F64]] = {
    "exposure": lambda look: np.asarray(
        look.of("clipped") > look.limits.get("max_clipped", _OFF), np.float64
    ),
    "borders": lambda look: np.asarray(look.of("border") < look.limits.get("min_border", -_OFF), np.float64),
    "grey": lambda look: np.asarray(look.of("colour") < look.limits.get("min_colour", -_OFF), np.float64),
}
"""1 for each frame of the shot that is bad, 0 for the others."""

RULES = (
    Rule("size", "min_side_px", _side_px),
    Rule("length", "min_shot_s", _seconds),
    Rule("bad_frames", "max_bad_frames", _bad_frames),
    Rule("blur", "min_sharpness", _blur),
    Rule("still", "min_motion_px", lambda look: look.mean("motion_px")),
    Rule("shaken", "max_motion_px", lambda look: look.mean("motion_px")),
    Rule("small_motion", "min_motion", lambda look: look.per_size(look.mean("motion_px"))),
    Rule("still_patch", "min_patch_motion", _stillest),
    Rule("text", "max_text", _text),
)
"""In the order in which they are asked; the first that is broken names the decision."""
