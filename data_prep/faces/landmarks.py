"""Five points of face crops that are kept without any: a pack's face mesh looks at each once more."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.faces.geometry import CROP_PX, mesh_five
from data_prep.faces.packs import find_pack
from data_prep.faces.recogniser import session_options
from data_prep.records import F32, U8, InputError

# Between a crop's border and the box that the mesh is told, which is to be like a detector's. Of 0, 8, 14 and 20
# the best on 19 faces of the demo's clips: 1.2 px from the photograph's own points (median; 95 %: 3.8, all: 6.8);
# the template alone is 1.8 px away (8.3; 11.9).
MARGIN_PX = 14
MESH = "landmark_2d_468"  # insightface's name of the task


def find_mesh(pack: str, home: Path | None = None) -> Path:
    """The file of an installed pack's 468-point mesh; raises InputError where it has none."""
    found = find_pack(pack, home)
    if not found.spec.mesh:
        raise InputError(
            f"face pack {pack!r} has no 468-point mesh, and nothing else here finds landmarks in a crop; take "
            "'embedded'"
        )
    return found.folder / found.spec.mesh


def five_points(pack: str, crops: U8, home: Path | None = None) -> F32:
    """Crops u8[n,112,112,3] RGB, each filled by one face, to f32[n,5,2], x y in their pixels: eyes, nose, mouth
    corners, image left first. Loads the pack's mesh once per process.

    Aligned crops come from such points of their photograph, but in the crop those are where the template says only
    on average: that a face is long or turned is what a drawing of them is to tell.
    """
    from insightface.app.common import Face

    mesh = _mesh_for(pack, home)
    box = np.array([MARGIN_PX, MARGIN_PX, CROP_PX - MARGIN_PX, CROP_PX - MARGIN_PX], np.float32)
    rows = []
    for crop in crops:
        points = mesh.get(np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)), Face(bbox=box))
        rows.append(mesh_five(np.asarray(points, np.float32)))
    return np.asarray(rows, np.float32).reshape(-1, 5, 2)


@cache
def _mesh_for(pack: str, home: Path | None) -> Any:
    from insightface.model_zoo import get_model

    mesh = get_model(str(find_mesh(pack, home)), sess_options=session_options(1))
    assert mesh.taskname == MESH, mesh.taskname
    return mesh
