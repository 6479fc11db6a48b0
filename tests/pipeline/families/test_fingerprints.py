"""A fingerprint of frozen files: other values, sizes, names and settings give another; where they lie does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.families import fingerprints


def weights(folder: Path, seed: int = 0) -> list[Path]:
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    save_file({"w": torch.randn(300, 400, generator=generator)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"layers": 2}')
    return list(folder.iterdir())


@pytest.mark.parametrize("whole", [True, False])
def test_it_says_what_the_files_hold(whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not whole:
        monkeypatch.setattr(fingerprints, "WHOLE_BYTES", 1000)
        monkeypatch.setattr(fingerprints, "BLOCK_BYTES", 500)
    first = weights(tmp_path / "a")
    mark = fingerprints.of_files(first, "bf16", 512)
    assert (
        fingerprints.of_files(reversed(weights(tmp_path / "b")), "bf16", 512) == mark
    )  # another place, order
    others = [
        fingerprints.of_files(first, "fp32", 512),
        fingerprints.of_files(first[:1], "bf16", 512),
        fingerprints.of_files(weights(tmp_path / "c", seed=1), "bf16", 512),
    ]
    (tmp_path / "b" / "config.json").write_text('{"layers": 3}')
    others.append(fingerprints.of_files((tmp_path / "b").iterdir(), "bf16", 512))
    assert mark not in others and len(set(others)) == 4


def test_training_a_little_changes_it_although_blocks_alone_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(fingerprints, "BLOCK_BYTES", 500)
    torch.manual_seed(0)
    value = torch.randn(300, 400)
    save_file({"w": value}, tmp_path / "model.safetensors")
    before = fingerprints.of_files([tmp_path / "model.safetensors"])
    save_file({"w": value - 1e-5 * torch.randn_like(value)}, tmp_path / "model.safetensors")
    assert fingerprints.of_files([tmp_path / "model.safetensors"]) != before
