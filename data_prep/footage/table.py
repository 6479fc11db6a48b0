"""The manifest of the demo footage: an UltraVideo-style CSV with all of its columns.

The captions say who does what, by stage name. ``motion_score`` is measured on the frames; ``vtss_score`` and
``video_clip_score`` come from models that are not here and hold constants that pass UltraVideo's filters.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from data_prep.footage.cast import PEOPLE
from data_prep.footage.compose import people_of
from data_prep.footage.places import BACKDROPS
from data_prep.footage.scenes import FPS, HEIGHT_PX, WIDTH_PX, Scene

VTSS_SCORE = 0.05
VIDEO_CLIP_SCORE = 0.25
STYLE = "Composited live action: people are cut out of films and photographs and set before other pictures."
LICENCE = "unclear; for local trials only"

Row = dict[str, str | int | float]


def write_table(path: Path, scenes: tuple[Scene, ...], motion: Mapping[str, float]) -> None:
    """One row per scene, utf-8 with a byte order mark. motion: mean absolute frame difference, 0..255, by clip."""
    rows = [_row(scene, motion[scene.clip_id]) for scene in scenes]
    with path.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _row(scene: Scene, motion: float) -> Row:
    first = round(scene.start_s * FPS)
    duration_s = scene.num_frames / FPS
    return {
        "clip_id": f"{scene.clip_id}.mp4",
        "url": scene.source,
        "fps": FPS,
        "frame_width": WIDTH_PX,
        "frame_height": HEIGHT_PX,
        "start_frame": first,
        "end_frame": first + scene.num_frames,
        "total_frames": scene.num_frames,
        "start_time": f"{scene.start_s:.3f}",
        "end_time": f"{scene.start_s + duration_s:.3f}",
        "duration": f"{duration_s:.3f}",
        "vtss_score": VTSS_SCORE,
        "motion_score": f"{motion:.3f}",
        "video_clip_score": VIDEO_CLIP_SCORE,
        **_captions(scene),
        "licence": LICENCE,
        "consent": "unknown",
    }


def _captions(scene: Scene) -> Row:
    names = people_of(scene)
    places = list(dict.fromkeys(BACKDROPS[shot.backdrop].caption for shot in scene.shots))
    cast = " ".join(f"{name} is {PEOPLE[name].look}." for name in names) or "No person is seen."
    background = f"Behind {'them' if len(names) > 1 else 'it all'} lies {', then '.join(places)}."
    light = "The light is even and soft, and rises and falls a little, as from an unsteady lamp."
    mood = "Calm and friendly; people take their time." if names else "Cheerful and quiet."
    parts = (scene.brief, cast, scene.action, background, scene.camera, light, mood, STYLE)
    return {
        "Brief Description": scene.brief,
        "Detailed Description": " ".join(parts),
        "Theme Description": "People in conversation" if names else "Animated landscape",
        "Shot Type": scene.shot_type,
        "Summarized Description": f"{scene.action} {background}",
        "Background": background,
        "Style": STYLE,
        "Camera Movement": scene.camera,
        "Lighting": light,
        "Video Atmosphere": mood,
    }
