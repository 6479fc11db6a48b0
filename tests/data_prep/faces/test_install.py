"""Building a pack from its packages: the bytes that are expected, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from data_prep.faces import packs
from data_prep.faces.install import install


def test_a_pack_is_built_bit_for_bit_and_only_once(tmp_path: Path) -> None:
    assert install("embedded_alt", tmp_path)
    folder = tmp_path / "models" / "embedded_alt"
    written = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert written == packs.PACKS["embedded_alt"].files
    assert not install("embedded_alt", tmp_path)


def test_a_torn_pack_is_mended(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "embedded_alt"
    folder.mkdir(parents=True)
    torn = folder / "rec_mobilefacenet192.onnx"
    torn.write_bytes(b"half a file")
    assert install("embedded_alt", tmp_path)
    assert packs.problem(packs.PACKS["embedded_alt"], tmp_path) == ""
