"""Two people of the demo footage for tests of judging: references from other clips, frames changed on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.decode import iter_frames
from data_prep.faces import FaceAnalyser
from data_prep.footage import ClipTruth
from data_prep.records import U8
from data_prep.tracks import iou
from pipeline.judging.sight import SeenFrame

ELSEWHERE = {"Nora": "cafe-03", "Oscar": "wall-03"}  # where the references come from
CAST = tuple(ELSEWHERE)
PACKS = ("embedded", "embedded_alt")
REFERENCE_EVERY = 20


def every_nth(path: Path, step: int) -> U8:
    """u8[T,H,W,3] of a film."""
    return np.concatenate([c.frames[-c.start % step :: step] for c in iter_frames(path)])


def reference_crops(footage: Path, analyser: FaceAnalyser) -> dict[str, U8]:
    """References of each person out of another clip, chosen by where the ground truth says that he is."""
    found = {}
    for name, clip in ELSEWHERE.items():
        truth = ClipTruth.load(footage / "truth" / f"{clip}.npz")
        person = list(truth.people).index(name)
        images = every_nth(footage / "clips" / f"{clip}.mp4", REFERENCE_EVERY)
        faces = []
        for frame, image in zip(range(0, len(truth.boxes_px), REFERENCE_EVERY), images, strict=True):
            if truth.visibility[frame, person] > 0.95:
                for face in analyser.detect(image):
                    if iou(face.box_px[None], truth.boxes_px[frame, person][None])[0, 0] > 0.5:
                        faces.append(analyser.measure(image, face).crop)
        found[name] = np.stack(faces)
    return found


def only(frame: SeenFrame, faces: Sequence[int]) -> SeenFrame:
    """The frame with these of its faces."""
    at = np.array(faces, int)
    return SeenFrame(frame.boxes[at], **_looks(frame, at))  # type: ignore[arg-type]


def exchanged(frame: SeenFrame) -> SeenFrame:
    """The frame whose faces trade places: boxes stay, what is seen in them turns round."""
    return replace(frame, **_looks(frame, np.arange(len(frame.boxes))[::-1]))  # type: ignore[arg-type]


def _looks(frame: SeenFrame, at: np.ndarray) -> Mapping[str, object]:
    return {
        "crops": frame.crops[at],
        "poses_deg": frame.poses_deg[at],
        "points_px": frame.points_px[at],
        "embeddings": {pack: rows[at] for pack, rows in frame.embeddings.items()},
    }
