"""Reference faces for ``castbank evaluate``, out of pictures, prepared shards, an identity bank or a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.records import InputError

if TYPE_CHECKING:
    from data_prep.records import U8
    from pipeline.judging.galleries import Gallery

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class References:
    """Galleries, one per recogniser, and a face u8[112,112,3] to show of each character that has a picture."""

    galleries: tuple[Gallery, ...]
    portraits: dict[str, U8]


def load_references(folder: Path) -> References:
    """Reference faces out of a folder of pictures, prepared shards, an identity bank, or a run with one.

    Raises InputError where it is none of them, a picture shows no face or several, the references of one character
    show two people, or a bank's embeddings are not those of the recogniser that it names.
    """
    from pipeline.judging.galleries import check_one_person_each, namesakes

    if not folder.is_dir():
        raise InputError(f"--references: {folder} is not a folder; give faces, shards or an identity bank.")
    if (folder / "index.jsonl").is_file():
        found = _embedded(_from_shards(folder))
    elif bank := _bank_in(folder):
        found = _from_bank(bank)
    else:
        found = _embedded(_from_pictures(folder))
    check_one_person_each(found.galleries)
    for a, b, cosine in namesakes(found.galleries[0]):
        sys.stderr.write(
            f"--references: {a} and {b} look like one person ({cosine:.2f}); margin and swaps say little of them\n"
        )
    return found


def _embedded(crops: Mapping[str, U8]) -> References:
    """By every recogniser of ours that is installed; raises InputError where the first is not."""
    from data_prep.faces import packs
    from pipeline.judging.galleries import gallery

    installed = [name for name in ("embedded", "embedded_alt") if not packs.problem(packs.PACKS[name])]
    if not installed:
        packs.find_pack("embedded")  # raises, and says how to install it
    portraits = {name: faces[0] for name, faces in crops.items()}
    return References(tuple(gallery(pack, crops) for pack in installed), portraits)


def _bank_in(folder: Path) -> Path | None:
    """Where the bank is: here, or in the export or the run whose folder this is."""
    places = (folder, folder / "bank", folder / "export" / "bank")
    return next((place for place in places if (place / "manifest.json").is_file()), None)


def _from_shards(folder: Path) -> dict[str, U8]:
    """The faces that enrolment would choose: at most five of each character, spread over yaw."""
    import numpy as np

    from data_prep.shards import ShardSet
    from pipeline.identity.enrol import gather_references

    shards = ShardSet.open(folder)
    found = gather_references(shards.read(index) for index in range(len(shards)))
    return {name: np.stack([image for _, image in one.chosen()]) for name, one in sorted(found.items())}


def _from_bank(folder: Path) -> References:
    from data_prep.faces import packs
    from pipeline.identity.bank import IdentityBank
    from pipeline.judging.galleries import Gallery

    entries = IdentityBank.load(folder).entries.values()
    by_pack = {entry.pack for entry in entries}
    if len(by_pack) != 1:
        raise InputError(
            f"--references: {folder} mixes face packs {sorted(by_pack)}; enrol everybody with one."
        )
    pack = packs.find_pack(by_pack.pop()).spec
    faces = {entry.name: entry.references.numpy() for entry in entries}
    for name, rows in faces.items():
        if rows.shape[1] != pack.dim:
            raise InputError(
                f"--references: {folder} names {pack.name}, which makes {pack.dim} numbers of a face; "
                f"{name!r} has {rows.shape[1]}. Enrol again, or give pictures."
            )
    return References((Gallery(pack.name, faces),), {})


def _from_pictures(folder: Path) -> dict[str, U8]:
    """``anna.png`` or ``anna/*.png``; a picture of exactly 112 × 112 is taken to be aligned already."""
    import cv2
    import numpy as np

    pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES)
    if not pictures:
        raise InputError(f"--references: no picture in {folder}; put NAME.png or NAME/*.png there.")
    crops: dict[str, list[U8]] = {}
    for path in pictures:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"--references: {path} is not a whole picture; replace or remove it.")
        crop = np.ascontiguousarray(image[..., ::-1])
        name = path.relative_to(folder).parts[0]
        name = Path(name).stem if path.parent == folder else name
        crops.setdefault(name, []).append(crop if crop.shape[:2] == (112, 112) else _only_face(path, crop))
    return {name: np.stack(faces) for name, faces in crops.items()}


def _only_face(path: Path, picture: U8) -> U8:
    """u8[112,112,3]: the face of a picture u8[H,W,3]; raises InputError where it shows none, or several that a
    recogniser could use."""
    from data_prep.faces import analyser_for

    analyser = analyser_for()
    faces = analyser.detect(picture)
    if not faces:
        raise InputError(f"--references: no face found in {path}; give a picture that shows one.")
    certain = [face for face in faces if face.score >= analyser.pack.spec.min_score]
    if len(certain) > 1:
        raise InputError(
            f"--references: {len(certain)} faces in {path}; cut out the one that is meant, `castbank faces show` "
            "draws what is seen."
        )
    return analyser.measure(picture, certain[0] if certain else faces[0]).crop
