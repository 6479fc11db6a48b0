"""Films are the same bytes each time, and of a kind that every decoder reads exactly."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from data_prep.footage.film import write_film


def _frames() -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    ramp = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)
    return [np.dstack([ramp, np.roll(ramp, i), ramp]) for i in range(50)]


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_film(tmp_path / name, _frames(), (96, 64), 24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_key_frame_a_second_and_no_frame_out_of_order(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", _frames(), (96, 64), 24)
    with av.open(str(tmp_path / "a.mp4")) as film:
        decoded = list(film.decode(video=0))
    assert [i for i, frame in enumerate(decoded) if frame.key_frame] == [0, 24, 48]
    assert [round(float(frame.time) * 24) for frame in decoded] == list(range(50))
    assert all(frame.pts == frame.dts for frame in decoded)
    error = np.abs(decoded[7].to_ndarray(format="rgb24").astype(int) - _frames()[7]).mean()
    assert error < 12  # this picture is harsh on 4:2:0 colour; a wrong frame differs by over 20
