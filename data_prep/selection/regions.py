"""What of a person a label map shows: the face as it was outlined, or everything that a person matte finds of them.

One seam: a function from the label map of the faces and the window's video to the label map that is packed. Faces
are outlined by the best landmarks that a pack has (mesh oval, hull of 106 points, ellipse of five:
``data_prep.faces.geometry``); between two frames in which a face was looked for, its outline is interpolated
linearly in units of its box, and the box linearly in pixels; over a gap in which it was looked for and not found
there is no mask (``data_prep.analysis.sightings``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from data_prep.decode import decode_mp4
from data_prep.faces.matte import PersonMatte, matte_for
from data_prep.records import F32, U8, MaskRegion

Region = Callable[[U8, bytes], U8]
"""Label map u8[T,H,W] of the faces in slot order and the window's mp4 → label map u8[T,H,W]."""

ASIDE, ABOVE, BELOW = (
    1.8,
    0.8,
    4.0,
)  # of the face's width and height: how far a person may reach from their face
OPAQUE = 0.5
MIN_FACE_COVERED = 0.5  # a matte that leaves out most of the face has found somebody else


def faces_alone(label_map: U8, _mp4: bytes) -> U8:
    """The label map as it is."""
    return label_map


def whole_people(label_map: U8, mp4: bytes) -> U8:
    """Every face grown to its person; who is not seen by their face is not in the map.

    Raises:
        InputError: the person matte is not installed.
    """
    matte = matte_for()
    frames = decode_mp4(mp4)
    return np.stack([grown(faces, image, matte) for faces, image in zip(label_map, frames, strict=True)])


def grown(faces: U8, image: U8, matte: PersonMatte) -> U8:
    """u8[H,W] of one frame, u8[H,W,3] RGB. A pixel that several people's mattes claim is whose face is nearest, in
    widths of that face; no face loses a pixel of its own."""
    nearest = np.full(faces.shape, np.inf, np.float32)
    people = np.zeros_like(faces)
    for slot in np.unique(faces[faces > 0]).tolist():
        away = _away(faces == slot, image, matte)
        closer = away < nearest
        nearest[closer] = away[closer]
        people[closer] = slot
    return np.where(faces > 0, faces, people).astype(np.uint8)


def _away(face: npt.NDArray[np.bool_], image: U8, matte: PersonMatte) -> F32:
    """f32[H,W]: where the matte says that it is this person, the distance to the middle of the face in its widths,
    and infinite elsewhere."""
    rows, columns = np.flatnonzero(face.any(1)), np.flatnonzero(face.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    height, width = bottom - top, right - left
    y1, y2 = max(0, round(top - ABOVE * height)), min(len(face), round(bottom + BELOW * height))
    x1, x2 = max(0, round(left - ASIDE * width)), min(face.shape[1], round(right + ASIDE * width))
    person = matte(image[y1:y2, x1:x2]) >= OPAQUE
    away = np.full(face.shape, np.inf, np.float32)
    if person[face[y1:y2, x1:x2]].mean() < MIN_FACE_COVERED:
        return away
    y, x = np.nonzero(person)
    middle_y, middle_x = (top + bottom) / 2, (left + right) / 2
    away[y + y1, x + x1] = np.hypot(y + y1 + 0.5 - middle_y, x + x1 + 0.5 - middle_x) / width
    return away


REGIONS: Mapping[MaskRegion, Region] = {"face": faces_alone, "person": whole_people}
