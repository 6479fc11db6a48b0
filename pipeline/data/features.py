"""Face embeddings of a sample's references and of its own frames, computed once and kept on disk.

They lie in packs (see ``packs``): the folder's name carries the recogniser and what was asked of it, an entry's
name the sample's own hash and its cut, so that a changed pack, configuration or sample can never meet a stale
embedding. These are biometric data: they lie beside the shards, never in them, and deleting the folder costs only
time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from data_prep.records import F32, U8, InputError
from pipeline.config import DataConfig
from pipeline.data.packs import DamagedError, PackStore

VERSION = "1"  # of how entries are made; another one is another folder
CROP_PX = 112
OWN_FACE_MARGIN = (
    0.93  # side of the square cut, per longer side of the mesh oval: 112 px over its 120 when aligned
)

Embed = Callable[[U8], tuple[F32, F32]]
"""Aligned crops u8[n,112,112,3] RGB to unit embeddings f32[n,D] and their lengths before normalising f32[n]."""
Landmarks = Callable[[U8], F32]
"""Crops u8[n,112,112,3] RGB to f32[n,5,2], x y in their pixels: eyes, nose, mouth corners, image left first."""
FaceCrops = tuple[tuple[U8, ...], tuple[U8 | None, ...]]
"""Per slot its reference crops u8[R,112,112,3], and its own face u8[112,112,3], if any."""
OUTSIDE, OWN = 0, 1  # places of the pictures that are kept


@dataclass(frozen=True)
class Recogniser:
    """What turns crops into embeddings. pack: the face pack it belongs to; sha256: of the network's weights; width:
    D of the embeddings; min_norm: an embedding shorter than this before normalising shows a covered or cut face;
    landmarks: finds the landmarks of crops, by a network of that ``landmarks_sha256``, where the pictures
    themselves are to be kept beside the embeddings (for the low-frequency path), else None."""

    pack: str
    embed: Embed
    sha256: str
    width: int
    min_norm: float
    landmarks: Landmarks | None = None
    landmarks_sha256: str = ""


def file_sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class FaceFeatures:
    """N slots: references f32[N,R,D] unit, reference_mask bool[N,R], own f32[N,D] unit, own_mask bool[N]; zeros
    where the mask is False. Where the recogniser finds landmarks, pictures u8[N,2,112,112,3]: the first reference,
    which preparation found the best, and the own face or black; landmarks f32[N,2,5,2] of both (75 kB a slot)."""

    references: F32
    reference_mask: npt.NDArray[np.bool_]
    own: F32
    own_mask: npt.NDArray[np.bool_]
    pictures: U8 | None = None
    landmarks: F32 | None = None


def features_folder(config: DataConfig) -> Path:
    """Where what is computed of the shards of a configuration is kept."""
    return Path(config.features or f"{config.shards.rstrip('/')}.features")


class FeatureStore:
    """A folder of cached features of one recogniser, safe for several writers."""

    def __init__(self, folder: Path, recogniser: Recogniser, asked: str) -> None:
        """``asked`` says what else all features depend on, such as the least size of own faces.

        Raises:
            InputError: the folder cannot be made.
        """
        self._recogniser = recogniser
        if recogniser.landmarks is not None:
            asked = f"{asked} pictures with landmarks by {recogniser.landmarks_sha256}"
        key = {"recogniser": recogniser.sha256, "asked": asked, "version": VERSION}
        try:
            self.packs = PackStore(folder, "faces", key)
            self.packs.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"data.features: face embeddings cannot be kept in {str(folder)!r} ({error.strerror}); give a "
                "folder that can be written"
            ) from error

    def get(self, name: str, cut: Callable[[], FaceCrops]) -> FaceFeatures:
        """The features under a name that says sample and cut; where they are not kept, or damaged, as after a loss
        of power, they are computed of what ``cut`` gives, and kept."""
        stored = self.kept(name)
        if stored is not None:
            return stored
        features = embed_faces(self._recogniser, *cut())
        self.packs.write_alone(name, _entry(features))
        return features

    def keep(self, cuts: Mapping[str, Callable[[], FaceCrops]]) -> None:
        """Compute the features of several cuts, by name, and keep them in one pack."""
        made = {name: embed_faces(self._recogniser, *cut()) for name, cut in cuts.items()}
        self.packs.write({name: _entry(features) for name, features in made.items()})

    def kept(self, name: str) -> FaceFeatures | None:
        """The features under a name where they are on disk and whole."""
        try:
            stored = self.packs.read(name) if self.packs.find(name) else None
        except DamagedError:
            return None
        return FaceFeatures(**{field: value.numpy() for field, value in stored.items()}) if stored else None


def _entry(features: FaceFeatures) -> dict[str, torch.Tensor]:
    return {field: torch.from_numpy(value) for field, value in vars(features).items() if value is not None}


def embed_faces(
    recogniser: Recogniser, references: tuple[U8, ...], own: tuple[U8 | None, ...]
) -> FaceFeatures:
    """Embed per slot u8[R,112,112,3] references and one own face u8[112,112,3] or None, in one pass."""
    num_slots, most = len(references), max((len(crops) for crops in references), default=0)
    seen = [k for k, crop in enumerate(own) if crop is not None]
    crops = [*references, *(crop[None] for crop in own if crop is not None)]
    unit, norms = recogniser.embed(np.concatenate(crops).astype(np.uint8))
    out = FaceFeatures(
        references=np.zeros((num_slots, most, recogniser.width), np.float32),
        reference_mask=np.zeros((num_slots, most), np.bool_),
        own=np.zeros((num_slots, recogniser.width), np.float32),
        own_mask=np.zeros(num_slots, np.bool_),
    )
    start = 0
    for slot, pictures in enumerate(references):
        out.references[slot, : len(pictures)] = unit[start : start + len(pictures)]
        out.reference_mask[slot, : len(pictures)] = True
        start += len(pictures)
    for row, slot in enumerate(seen, start):
        if norms[row] >= recogniser.min_norm:
            out.own[slot], out.own_mask[slot] = unit[row], True
    return out if recogniser.landmarks is None else _with_pictures(out, recogniser.landmarks, references, own)


def _with_pictures(
    features: FaceFeatures, landmarks: Landmarks, references: tuple[U8, ...], own: tuple[U8 | None, ...]
) -> FaceFeatures:
    num_slots = len(references)
    pictures = np.zeros((num_slots, 2, CROP_PX, CROP_PX, 3), np.uint8)
    points = np.zeros((num_slots, 2, 5, 2), np.float32)
    for slot, (outside, face) in enumerate(zip(references, own, strict=True)):
        seen = [outside[0]] if face is None else [outside[0], face]
        pictures[slot, : len(seen)] = seen
        points[slot, : len(seen)] = landmarks(np.stack(seen))
    return replace(features, pictures=pictures, landmarks=points)


def own_face(video: U8, mask: U8, min_px: int) -> U8 | None:
    """A face cut on purpose from the sample's own frames: square, around the largest region of a slot.

    Args:
        video: u8[T,H,W,3].
        mask: bool[T,H,W], where the slot's face is.
        min_px: shorter side below which there is no usable face.

    Returns:
        u8[112,112,3], or None.
    """
    frame = int(mask.sum((1, 2)).argmax())
    ys, xs = np.nonzero(mask[frame])
    if len(ys) == 0 or min(np.ptp(ys), np.ptp(xs)) + 1 < min_px:
        return None
    centre = ((xs.min() + xs.max()) / 2, (ys.min() + ys.max()) / 2)
    side = OWN_FACE_MARGIN * (max(np.ptp(ys), np.ptp(xs)) + 1)
    scale = CROP_PX / side
    move = np.array(
        [[scale, 0, CROP_PX / 2 - scale * centre[0]], [0, scale, CROP_PX / 2 - scale * centre[1]]]
    )
    crop = cv2.warpAffine(video[frame], move, (CROP_PX, CROP_PX), flags=cv2.INTER_CUBIC)
    return np.asarray(crop, np.uint8)
