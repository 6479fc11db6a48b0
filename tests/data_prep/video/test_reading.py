"""What becomes of each kind of file under each treatment, and of files that are none."""

import hashlib
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from data_prep.config import DecodeConfig, UnusualConfig
from data_prep.decode import decoder_versions
from data_prep.video.probe import UnusableError
from data_prep.video.reading import reading
from tests.unusual_videos import KINDS, TRAITS, shown

READ = DecodeConfig(unusual=UnusualConfig(variable_rate="read"))
DECORD, PYAV = decoder_versions()["decord"], decoder_versions()["pyav"]


def numbers_read(path, config, read_numbers):
    with reading(path, config) as source:
        frames = np.concatenate([chunk.frames for chunk in source.chunks()])
        return read_numbers(frames), source


@pytest.mark.parametrize("trait", sorted(set().union(*TRAITS.values())))
def test_a_trait_is_refused_by_its_name(trait, make_video):
    kind = next(kind for kind, traits in TRAITS.items() if trait in traits)
    config = DecodeConfig(unusual=replace(UnusualConfig(), **{trait: "refuse"}))
    why = pytest.raises(UnusableError, match=rf"{trait}: .* \(allowed: none, by decode.unusual.{trait}\)")
    with why, reading(make_video(**KINDS[kind]), config):
        pass


def test_who_reads_is_written_down(make_video, read_numbers):
    path = make_video(num_frames=5, pts=[0, 40, 80, 200, 240])
    numbers, source = numbers_read(path, READ, read_numbers)
    assert (numbers, source.decoder) == (list(range(5)), PYAV)
    assert source.medium.startswith(
        "h264 yuv420p 192x96, 5 frames, 16.667 fps, steps 2.00 uneven, start 0.000 s"
    )
    numbers, source = numbers_read(path, DecodeConfig(), read_numbers)
    assert source.decoder == f"{PYAV}, canonical (variable_rate), {PYAV}"
    assert numbers == [0, 1, 2, 2, 2, 3, 4]
    assert source.found.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    numbers, source = numbers_read(path, replace(READ, reader="decord"), read_numbers)
    assert (numbers, source.decoder) == (list(range(5)), DECORD)


def test_hdr_comes_out_sdr_whether_read_or_canonical(make_video, read_numbers):
    path = make_video(**KINDS["hevc_pq"])
    seen = []
    for treatment in ("read", "canonicalise"):
        config = DecodeConfig(unusual=UnusualConfig(hdr=treatment))
        with reading(path, config) as source:
            seen.append(np.concatenate([chunk.frames for chunk in source.chunks()]))
    assert read_numbers(seen[0]) == read_numbers(seen[1]) == shown("hevc_pq")[0]
    assert np.abs(seen[0].astype(int) - seen[1]).mean() < 4


def refused(path, reader="decord") -> str:
    """The rule by which a file is refused; what is not refused must read whole."""
    try:
        with reading(path, DecodeConfig(reader=reader)) as source:
            assert sum(len(chunk.frames) for chunk in source.chunks()) == source.found.num_frames
    except UnusableError as error:
        return error.rule
    return ""


def test_one_frame_reads(make_video, read_numbers):
    numbers, source = numbers_read(make_video(num_frames=1), DecodeConfig(), read_numbers)
    assert numbers == [0] and source.found.duration_s == 1.0


def test_a_zip_bomb_is_unreadable_and_not_unpacked(tmp_path):
    path = tmp_path / "bomb.mp4"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clip.mp4", bytes(64 * 1024**2))
    assert path.stat().st_size < 100_000 and refused(path) == "unreadable"


def test_a_file_that_may_not_be_read(make_video, monkeypatch):
    """Root may read everything, so that the system's answer is put in its place."""
    path = make_video(num_frames=2)

    def denied(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    if os.geteuid():
        path.chmod(0)
    else:
        monkeypatch.setattr("pathlib.Path.open", denied)
    assert refused(path) == "unreadable"


def test_flipped_bits_are_refused_by_pyav(make_video):
    path = make_video(container={"movflags": "+faststart"}, crf="10")
    data = path.read_bytes()
    start = data.index(b"mdat") + 8
    rng = np.random.default_rng(5)
    rules = []
    for at in rng.integers(start + 1000, len(data), 20):
        broken = bytearray(data)
        broken[at] ^= 16
        path.write_bytes(broken)
        rules.append(refused(path, "pyav"))
    assert set(rules) <= {"", "unreadable"} and rules.count("unreadable") >= 12
