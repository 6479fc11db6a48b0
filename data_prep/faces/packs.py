"""The face packs castbank knows: what is in each, under which licence, the thresholds measured for it, and where
it lies on this machine.

A pack is a folder of ONNX files that ``insightface.app.FaceAnalysis`` loads unchanged. Ours are built by
``data_prep.faces.install``; insightface's own are used where a person already has them.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.records import InputError, MaskShape

NON_COMMERCIAL = "non-commercial research only (insightface's model terms)"


@dataclass(frozen=True)
class PackSpec:
    """A pack and the numbers that only hold for its recogniser.

    files: file name → sha256, empty for packs that we do not build; same_person: cosine from which two faces are
    one person; mesh: file of a 468-point face mesh, and hull: of 106 landmarks,
    empty where it has none; min_norm: embedding length below
    which a face is covered or cut, 0 where not measured; min_score: detector confidence below which a face is
    covered or cut; dim: width of an embedding; evidence: where the thresholds come from.
    """

    name: str
    licence: str
    commercial: bool
    dim: int
    recogniser: str
    has_detector: bool
    same_person: float
    min_norm: float
    min_score: float
    evidence: str
    files: Mapping[str, str] = field(default_factory=dict)
    mesh: str = ""
    hull: str = ""


_SPECS = (
    PackSpec(
        name="embedded",
        licence="MIT (detector, recogniser), Apache-2.0 (face mesh); training data not stated by any",
        commercial=True,
        dim=512,
        recogniser="rec_mobilefacenet512.onnx",
        has_detector=True,
        same_person=0.40,
        min_norm=2.8,
        min_score=0.8,
        evidence="measured on 191 real faces: impostors at most .355, genuine across photos at least .41",
        files={
            "det_centerface.onnx": "224fd5659d9847cd5834ab6f3420543bd7b6deb464e72d997ccf910b466c7996",
            "lmk_facemesh468.onnx": "e1e851cd1723414e6759411449e09a04071872d070974986c52cbacdee636e22",
            "rec_mobilefacenet512.onnx": "705e626a783cee60c42bbccb0346d0d437a6d4fd8bd61c340fbd2e041656597f",
        },
        mesh="lmk_facemesh468.onnx",
    ),
    PackSpec(
        name="embedded_alt",
        licence="MIT; training data not stated",
        commercial=True,
        dim=192,
        recogniser="rec_mobilefacenet192.onnx",
        has_detector=False,
        same_person=0.60,
        min_norm=0.0,
        min_score=0.8,
        evidence="measured on 22 faces of 10 people: impostors at most .57, genuine at least .67",
        files={
            "rec_mobilefacenet192.onnx": "ebe35cf6a8d1d38f952d3ab8cedfa33191fecffb35784a1534577950d6ef7862"
        },
    ),
    PackSpec(
        name="buffalo_l",
        licence=NON_COMMERCIAL,
        commercial=False,
        dim=512,
        recogniser="w600k_r50.onnx",
        has_detector=True,
        same_person=0.40,
        min_norm=0.0,
        min_score=0.65,
        evidence="not measured by us: the default of insightface 2.1's own comparison; calibrate on your data",
        hull="2d106det.onnx",
    ),
    PackSpec(
        name="antelopev2",
        licence=NON_COMMERCIAL,
        commercial=False,
        dim=512,
        recogniser="glintr100.onnx",
        has_detector=True,
        same_person=0.40,
        min_norm=0.0,
        min_score=0.65,
        evidence="not measured by us: the default of insightface 2.1's own comparison; calibrate on your data",
        hull="2d106det.onnx",
    ),
)
PACKS: Mapping[str, PackSpec] = {spec.name: spec for spec in _SPECS}


@dataclass(frozen=True)
class InstalledPack:
    """A complete pack on this machine; ``folder`` is absolute."""

    spec: PackSpec
    folder: Path

    @property
    def recogniser(self) -> Path:
        return self.folder / self.spec.recogniser

    @property
    def shapes(self) -> tuple[MaskShape, ...]:
        """The outlines of a face that its landmarks can draw, besides ``auto``, the best first."""
        mesh, hull = (
            (self.folder / name).is_file() if name else False for name in (self.spec.mesh, self.spec.hull)
        )
        kinds: tuple[tuple[MaskShape, bool], ...] = (
            ("mesh", mesh),
            ("hull", mesh or hull),
            ("ellipse", True),
        )
        return tuple(kind for kind, there in kinds if there)

    def require_shape(self, shape: MaskShape) -> None:
        """Raises InputError where the pack's landmarks cannot draw it."""
        if shape != "auto" and shape not in self.shapes:
            raise InputError(
                f"masks.shape: came {shape!r}, the landmarks of face pack {self.spec.name!r} draw "
                f"{', '.join(self.shapes)}; take one of these, or auto"
            )


def home() -> Path:
    """The per-user folder of everything fetched or built once: $CASTBANK_HOME, else ~/.cache/castbank."""
    return Path(os.environ.get("CASTBANK_HOME") or "~/.cache/castbank").expanduser().resolve()


def known_pack(name: str) -> PackSpec:
    """Look a pack up by name; raises InputError that lists the names."""
    if name not in PACKS:
        raise InputError(f"face pack: no pack is called {name!r}; known are {', '.join(PACKS)}.")
    return PACKS[name]


def folder(spec: PackSpec, root: Path | None = None) -> Path:
    """Where a pack lies or would lie: ``models`` below ``root`` (``home()`` when None); a pack that is not ours
    to build may also lie where insightface keeps it."""
    ours = (root or home()) / "models" / spec.name
    insightface = Path("~/.insightface/models").expanduser() / spec.name
    return insightface if not spec.files and not ours.is_dir() and insightface.is_dir() else ours


def problem(spec: PackSpec, root: Path | None = None) -> str:
    """What keeps a pack from being used, and the remedy; empty when it is complete. Hashes are checked where we
    know them (10 ms); a foreign ONNX file matters, as insightface takes the first of the alphabet for a task."""
    place = folder(spec, root)
    remedy = (
        f"run `castbank faces install {spec.name}`"
        if spec.files
        else f"put insightface's {spec.name} folder there or into ~/.insightface/models"
    )
    present = {path.name for path in place.glob("*.onnx")}
    if spec.recogniser not in present:
        return f"face pack {spec.name!r} is not installed at {place}: {remedy}"
    if spec.files and (foreign := sorted(present - set(spec.files))):
        return f"{place} holds {', '.join(foreign)}, which face pack {spec.name!r} does not: move it away"
    for filename, expected in spec.files.items():
        if filename not in present:
            return f"{place / filename} is missing from face pack {spec.name!r}: {remedy}"
        got = hashlib.sha256((place / filename).read_bytes()).hexdigest()
        if got != expected:
            return f"{place / filename} has sha256 {got}, expected {expected}: {remedy}"
    return ""


def find_pack(name: str, root: Path | None = None) -> InstalledPack:
    """The installed pack; nothing is ever downloaded here. A non-commercial licence is said aloud, as a warning.

    Raises InputError where the pack is unknown, absent, incomplete or altered.
    """
    spec = known_pack(name)
    if found := problem(spec, root):
        raise InputError(found)
    if not spec.commercial:
        warnings.warn(f"face pack {name}: {spec.licence}", stacklevel=2)
    return InstalledPack(spec, folder(spec, root).absolute())
