"""Packed tensors: read back bit for bit, also by safetensors; damage is seen; stale is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.data.packs import DamagedError, PackStore

KEY = {"family": "tiny", "fingerprint": "a" * 64}


def entries(seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"e{k}": {
            "latents": torch.randn(3, k + 1, 5, generator=generator),
            "half": torch.randn(7, generator=generator).bfloat16(),
            "bytes": torch.arange(k, dtype=torch.uint8),  # none in the first
            "count": torch.tensor(k),
        }
        for k in range(4)
    }


def test_entries_come_back_bit_for_bit_in_a_new_process_too(tmp_path: Path) -> None:
    first = PackStore(tmp_path, "latents", KEY)
    first.write(entries())
    again = PackStore(tmp_path, "latents", KEY)
    for store in (first, again):
        for name, tensors in entries().items():
            found = store.read(name)
            assert found.keys() == tensors.keys()
            for key, value in tensors.items():
                assert found[key].dtype == value.dtype and torch.equal(found[key], value)
    assert len(again) == 4 and "e0" in again and "e9" not in again


def test_a_pack_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    store = PackStore(tmp_path, "latents", KEY)
    store.write(entries())
    (path,) = store.folder.glob("*.safetensors")
    plain = load_file(path)
    for name, tensors in entries().items():
        assert all(torch.equal(plain[f"{name}/{key}"], value) for key, value in tensors.items())


def test_another_description_is_another_place_and_is_named(tmp_path: Path) -> None:
    PackStore(tmp_path, "latents", KEY).write(entries())
    other = PackStore(tmp_path, "latents", KEY | {"fingerprint": "b" * 64})
    assert len(other) == 0
    assert list(other.others()) == [KEY]
    assert len(PackStore(tmp_path, "text", KEY)) == 0


def test_what_is_written_later_counts_and_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    one, two = (PackStore(tmp_path, "latents", KEY) for _ in range(2))
    one.write({"e1": entries()["e1"]})
    two.write({"e2": entries()["e2"]})
    assert "e1" in one and "e2" not in one
    assert len(PackStore(tmp_path, "latents", KEY)) == 2
    assert not list(one.folder.glob(".*"))


@pytest.mark.parametrize("damage", ["empty", "short", "header"])
def test_a_pack_that_is_cut_short_is_not_there(damage: str, tmp_path: Path) -> None:
    store = PackStore(tmp_path, "latents", KEY)
    store.write(entries())
    (path,) = store.folder.glob("*.safetensors")
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "short": data[:-8], "header": data[:100]}[damage])
    assert len(PackStore(tmp_path, "latents", KEY)) == 0
    path.unlink()
    with pytest.raises(DamagedError, match=r"cached e1 in .*--check"):
        store.read("e1")


def test_a_flipped_bit_damages_its_entry_alone(tmp_path: Path) -> None:
    store = PackStore(tmp_path, "latents", KEY)
    store.write(entries())
    (path,) = store.folder.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-20] ^= 4  # of the last entry
    path.write_bytes(data)
    again = PackStore(tmp_path, "latents", KEY)
    assert [again.sound(name) for name in entries()] == [True, True, True, False]
    with pytest.raises(DamagedError, match=r"cached e3 .* checksum differs"):
        again.read("e3")
    again.drop("e3")
    assert len(again) == 0 and not path.exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PackStore(tmp_path, "latents", KEY)
    store.write({"e0": entries()["e0"]})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write({"e1": entries()["e1"]})
    assert "e1" not in store and len(list(store.folder.iterdir())) == 2
