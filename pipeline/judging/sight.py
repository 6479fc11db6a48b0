"""What is seen in a video's frames, once for all recognisers; faces are kept, frames are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from data_prep.faces import FaceAnalyser, embed_crops
from data_prep.records import F32, U8
from pipeline.judging.liveliness import POINTS

MIN_LONG_SIDE_PX = (
    640  # smaller frames are enlarged first: the landmark model then sees more than a few pixels
)
NO_POINTS: F32 = np.zeros((0, 2), np.float32)


@dataclass(frozen=True)
class SeenFrame:
    """The n faces of one frame. boxes: f32[n,4] x1 y1 x2 y2 in shares of width and height; crops:
    u8[n,112,112,3] aligned; poses_deg: f32[n,3] yaw, pitch, roll, NaN where not measured; points_px: f32[n,K,2] in
    pixels of the looked-at frame, the mesh points that ``liveliness`` reads, K = 0 without a mesh; embeddings: by
    pack, unit rows f32[n,D]."""

    boxes: F32
    crops: U8
    poses_deg: F32 = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    points_px: F32 = field(default_factory=lambda: np.zeros((0, 0, 2), np.float32))
    embeddings: Mapping[str, F32] = field(default_factory=dict)

    def embedded(self, pack: str) -> F32:
        """Unit rows f32[n,D] by one recogniser; computed from the crops where ``see`` was not asked for them."""
        return self.embeddings[pack] if pack in self.embeddings else embed_crops(pack, self.crops)[0]


def see(frames: Iterable[U8], analyser: FaceAnalyser, packs: Sequence[str] = ()) -> list[SeenFrame]:
    """Find, align and measure the faces of each frame u8[H,W,3], and embed them with the recognisers named."""
    return [_see_one(frame, analyser, packs) for frame in frames]


def _see_one(frame: U8, analyser: FaceAnalyser, packs: Sequence[str]) -> SeenFrame:
    scale = max(1.0, MIN_LONG_SIDE_PX / max(frame.shape[:2]))
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    image = (
        frame if scale == 1 else np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    )
    faces = analyser.detect(image)
    looks = [analyser.measure(image, face) for face in faces]
    crops = np.asarray([one.crop for one in looks], np.uint8).reshape(-1, 112, 112, 3)
    poses = [(one.pose.yaw_deg, one.pose.pitch_deg, one.pose.roll_deg) for one in looks]
    points = [NO_POINTS if one.mesh_px is None else one.mesh_px[list(POINTS)] for one in looks]
    return SeenFrame(
        boxes=np.asarray([face.box_px / (*size, *size) for face in faces], np.float32).reshape(-1, 4),
        crops=crops,
        poses_deg=np.asarray(poses, np.float32).reshape(-1, 3),
        points_px=np.asarray(points, np.float32).reshape(len(faces), -1, 2)
        if faces
        else np.zeros((0, len(POINTS), 2), np.float32),
        embeddings={pack: embed_crops(pack, crops)[0] for pack in packs},
    )
