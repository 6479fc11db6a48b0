"""An evaluation.json of as many videos as wanted, with strips, in seconds: judging so many would take hours.

Numbers are drawn so that the videos differ; what makes them is not tested with it, but how they are shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.judging.intervals import intervals
from pipeline.judging.pages.strips import NUM_FRAMES, Strip

PEOPLE = ("Anna", "Ben", "Carl", "Dora", "Emil", "Fay")
PACKS = {"embedded": 0.4, "embedded_alt": 0.55}


def make_evaluation(
    num_videos: int, num_frames: int = 49, seed: int = 0, gain: float = 0.0
) -> dict[str, Any]:
    """gain: by how much everybody is liker; the same seed has the same videos."""
    random = np.random.default_rng(seed)
    videos = [_video(at, num_frames, random, gain) for at in range(num_videos)]
    found = intervals([row["figures"] for row in videos]) if num_videos else {}
    means = {name: {"mean": i.mean, "low": i.low, "high": i.high, "num": i.num} for name, i in found.items()}
    return {"schema": 1, "figures": means, "videos": videos, "mean": None, "episode": None, "against": []}


def make_strips(evaluation: dict[str, Any], folder: Path) -> dict[str, Path]:
    """A strip of a moving disc for each video, by key."""
    folder.mkdir(parents=True, exist_ok=True)
    strips = {}
    for at, row in enumerate(evaluation["videos"]):
        strip = Strip(NUM_FRAMES)
        back = np.full((108, 192, 3), (40 + 7 * at % 120, 90, 140 - 5 * at % 90), np.uint8)
        frames = [
            cv2.circle(back.copy(), (20 + 21 * k, 54), 16, (240, 220, 190), -1) for k in range(NUM_FRAMES)
        ]
        strip.see(np.stack(frames))
        path = folder / f"{at:04d}.jpg"
        path.write_bytes(strip.jpeg())
        strips[row["key"]] = path
    return strips


def _video(at: int, num_frames: int, random: np.random.Generator, gain: float) -> dict[str, Any]:
    cast = [str(name) for name in random.permutation(PEOPLE)[:2]]
    scores, figures = [], {}
    likeness = random.uniform(0.2, 0.75)
    for pack, same in PACKS.items():
        own = likeness + gain + random.normal(0, 0.05, (num_frames, 2))
        bleed = random.uniform(-0.05, 0.3, 2)
        matrix = [[own[:, 0].mean(), bleed[0]], [bleed[1], own[:, 1].mean()]]
        margins = [matrix[0][0] - bleed[0], matrix[1][1] - bleed[1]]
        figures |= {
            f"likeness/{pack}": own.mean(),
            f"likeness_lowest/{pack}": own.mean(0).min(),
            f"bleed/{pack}": bleed.mean(),
            f"margin_lowest/{pack}": min(margins),
            f"recognised/{pack}": (own > same).mean(),
            f"swap_rate/{pack}": max(0.0, random.normal(0, 0.1)),
            f"missing/{pack}": max(0.0, random.normal(0, 0.3)),
            f"steadiness/{pack}": random.uniform(0.7, 0.98),
            f"copy_excess/{pack}": random.normal(0, 0.05),
        }
        scores.append(
            {"pack": pack, "same_person": same, "similarity": _plain(matrix), "own_by_frame": _plain(own)}
        )
    figures |= {
        "expression_range": random.uniform(0.01, 0.12),
        "clip_score": random.uniform(18, 33),
        "motion": random.uniform(0, 2),
        "flicker": random.uniform(0.4, 5),
        "vbench_flickering": random.uniform(0.9, 1),
    }
    return {
        "video": f"made/{at:04d}-{'-'.join(cast).lower()}.mp4",
        "key": f"{', '.join(cast)} | {cast[0]} talks to {cast[1]} in a cafe | seed {at}",
        "cast": cast,
        "num_frames": num_frames,
        "figures": _plain(figures),
        "characters": {name: {f"likeness/{pack}": float(likeness) for pack in PACKS} for name in cast},
        "scores": scores,
    }


def _plain(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items()}
    if isinstance(values, list | np.ndarray):
        return [_plain(value) for value in values]
    return round(float(values), 6)
