"""Packed tensors: read back bit for bit, also by safetensors; damage is seen; stale is not."""

from __future__ import annotations

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_prep.records import InputError
from pipeline.data.packs import OPEN_FILES, DamagedError, PackStore

KEY = {"family": "tiny", "fingerprint": "a" * 64}


def entries(seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"e{k}": {
            "latents": torch.randn(3, k + 1, 5, generator=generator),
            "half": torch.randn(7, generator=generator).bfloat16(),
            "bytes": torch.arange(k, dtype=torch.uint8),  # none in the first
            "flags": torch.tensor([True, False, True]),
            "counts": torch.arange(65533, 65533 + k, dtype=torch.int32).to(torch.uint16),
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


def test_an_entry_is_read_into_what_is_given_and_nothing_beside_it(tmp_path: Path) -> None:
    store = PackStore(tmp_path, "latents", KEY)
    store.write(entries())
    for name, tensors in entries().items():
        whole = torch.full((3, *tensors["latents"].shape), 7.0)
        found = store.read(name, {"latents": whole[1]})
        assert found["latents"].data_ptr() == whole[1].data_ptr()
        assert torch.equal(whole[1], tensors["latents"]) and bool((whole[::2] == 7).all())
        assert all(torch.equal(found[key], value) for key, value in tensors.items())


def test_a_call_that_gives_less_than_all_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As network file systems and entries of more than 2 GiB do."""
    store = PackStore(tmp_path, "latents", KEY)
    store.write(entries())
    whole = os.preadv
    monkeypatch.setattr("os.preadv", lambda handle, views, at: whole(handle, [views[0][:5]], at))
    for name, tensors in entries().items():
        found = store.read(name)
        assert all(torch.equal(found[key], value) for key, value in tensors.items())


def test_threads_may_read_more_packs_than_stay_open(tmp_path: Path) -> None:
    store = PackStore(tmp_path, "latents", KEY)
    for number in range(OPEN_FILES + 6):
        store.write({f"e{number}": {"latents": torch.full((1000,), number)}})
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda k: store.read(f"e{k}")["latents"], 4 * list(range(OPEN_FILES + 6))))
    assert all(bool((value == k % (OPEN_FILES + 6)).all()) for k, value in enumerate(found))


def test_one_written_alone_is_found_and_stands_in_for_a_damaged_one(tmp_path: Path) -> None:
    one, other = (PackStore(tmp_path, "faces", KEY) for _ in range(2))
    one.write(entries())
    (path,) = one.folder.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-20] ^= 4
    path.write_bytes(data)
    assert not other.find("e3") and not one.sound("e3")
    one.write_alone("e3", entries()["e3"])
    assert one.sound("e3") and other.find("e3") and other.sound("e3") and not other.find("e2")
    again = PackStore(tmp_path, "faces", KEY)
    assert all(again.sound(name) for name in entries())


def test_shared_memory_that_is_full_is_no_damage(tmp_path: Path) -> None:
    store = PackStore(tmp_path, "latents", KEY)
    store.write(entries())
    with (tmp_path / "room").open("w+b") as file:
        file.truncate(4096)
        memory = mmap.mmap(file.fileno(), 4096)
        into = torch.frombuffer(memory, dtype=torch.float32)[: 3 * 4 * 5].view(3, 4, 5)
        file.truncate(0)  # as a memory file system answers that has no room for the page
        with pytest.raises(InputError, match=r"data\.num_workers: no room .*/dev/shm.*--shm-size") as caught:
            store.read("e3", {"latents": into})
        assert not isinstance(caught.value, DamagedError)


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
