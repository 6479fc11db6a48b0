"""What a scene of the demo footage is made of: actors with their paths, shots, and what its captions say.

Lengths are pixels of the 960×540 frame; a path runs over the time of its shot, from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

WIDTH_PX, HEIGHT_PX, FPS = 960, 540, 24


@dataclass(frozen=True)
class Pose:
    """Where a face is at one time: centre, height of its outline, clockwise roll."""

    at: float
    x: float
    y: float
    face_px: float
    roll_deg: float = 0.0


@dataclass(frozen=True)
class Actor:
    """A take and its path. sway_deg: how far a photograph's head turns to either side, once to and fro a shot,
    starting at ``phase`` of that motion; films move by themselves."""

    take: str
    path: tuple[Pose, ...]
    sway_deg: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True)
class Shot:
    """Frames without a cut; later actors stand in front; desk_px of wood run along the lower edge, over all."""

    num_frames: int
    backdrop: str
    actors: tuple[Actor, ...] = ()
    desk_px: int = 0


@dataclass(frozen=True)
class Scene:
    """One clip: ``[start_s, start_s + duration)`` of a source, and what its captions say."""

    clip_id: str
    source: str
    start_s: float
    shots: tuple[Shot, ...]
    brief: str
    action: str
    shot_type: str = "Medium shot"
    camera: str = "The camera glides slowly sideways."

    @property
    def num_frames(self) -> int:
        return sum(shot.num_frames for shot in self.shots)


def still(x: float, y: float, face_px: float, dx: float = 24, grow: float = 1.06) -> tuple[Pose, ...]:
    """Somebody who stays at their place: a small drift, a slight growth and a tilt of the head."""
    return (
        Pose(0.0, x - dx / 2, y, face_px, -1.5),
        Pose(0.55, x + dx / 2, y - 4, face_px * grow, 2.0),
        Pose(1.0, x + dx / 4, y + 2, face_px * (1 + grow) / 2, 0.0),
    )
