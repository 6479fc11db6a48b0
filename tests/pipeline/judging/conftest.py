"""What the tests of judging share: the face pack, and references of two people out of other clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.faces import FaceAnalyser, analyser_for
from data_prep.records import U8
from pipeline.judging.galleries import Gallery, gallery
from tests.judged_people import PACKS, reference_crops


@pytest.fixture(scope="session")
def analyser(face_home: Path) -> FaceAnalyser:
    return analyser_for("embedded", (640, 384), face_home)


@pytest.fixture(scope="session")
def crops(footage: Path, analyser: FaceAnalyser) -> dict[str, U8]:
    return reference_crops(footage, analyser)


@pytest.fixture(scope="session")
def galleries(crops: dict[str, U8]) -> tuple[Gallery, ...]:
    return tuple(gallery(pack, crops) for pack in PACKS)
