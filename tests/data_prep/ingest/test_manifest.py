"""Manifests as people have them: what is read, and what each mistake is answered with."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from data_prep.config import IngestConfig
from data_prep.ingest.manifest import read_clips as read
from data_prep.records import Clip, Decision, InputError
from tests.s3_lab import s3_lab

HEADER = "clip_id,url,fps,frame_width,frame_height,start_time,end_time,Brief Description"
ROW = "a.mp4,src1,24,1920,1080,0.0,5.0,Anna waves"


def read_clips(manifest: Path, clips: Path) -> tuple[list[Clip], list[Decision]]:
    return read(str(manifest), str(clips), IngestConfig())


@pytest.fixture
def clips_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    (folder / "clips_short_1").mkdir(parents=True)
    for name in ("a.mp4", "b.mp4", "clips_short_1/nested.mp4"):
        (folder / name).write_bytes(b"x")
    return folder


def written(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "short.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_every_column_of_ultravideo(tmp_path, clips_folder):
    header = (
        "clip_id,url,fps,frame_width,frame_height,start_frame,end_frame,total_frames,start_time,end_time,duration,"
        "vtss_score,motion_score,video_clip_score,Brief Description,Detailed Description,Theme Description,"
        "Shot Type,Summarized Description,Background,Style,Camera Movement,Lighting,"
        "Video Atmosphere,licence,consent"
    )
    row = (
        '"a.mp4",vid7,29.97,3840,2160,10,160,150,00:00:10.5,1:15.5,5,0.5,3.2,0.3,"brief, with a comma",'
        '"' + "long " * 60_000 + '",theme,close-up,sum,back,style,still,soft,calm,CC-BY,granted'
    )
    clips, decisions = read_clips(written(tmp_path, f"{header}\r\n{row}\r\n", "utf-8-sig"), clips_folder)
    assert decisions == []
    (clip,) = clips
    assert (clip.id, clip.source_id, clip.path) == ("a", "vid7", str(clips_folder / "a.mp4"))
    assert (clip.start_s, clip.end_s, clip.fps, clip.width_px, clip.height_px) == (
        10.5,
        75.5,
        29.97,
        3840,
        2160,
    )
    assert clip.captions.brief == "brief, with a comma" and len(clip.captions.detailed) == 299_999
    assert (clip.captions.camera_movement, clip.captions.atmosphere) == ("still", "calm")
    assert (clip.licence, clip.consent) == ("CC-BY", "granted")


def test_headers_in_other_spellings(tmp_path, clips_folder):
    header = "Clip ID,URL,FPS,frame width,FrameHeight,START_TIME,End-Time,brief_description"
    clips, _ = read_clips(written(tmp_path, f"{header}\n{ROW}\n\n,,,,,,,\n"), clips_folder)
    assert [c.captions.brief for c in clips] == ["Anna waves"]


def test_nested_and_absent_files_and_refused_consent(tmp_path, clips_folder):
    rows = [
        ROW + ",",
        ROW.replace("a.mp4", "nested.mp4") + ",unknown",
        ROW.replace("a.mp4", "gone.mp4") + ",granted",
        ROW.replace("a.mp4", "b.mp4") + ",Refused",
    ]
    clips, decisions = read_clips(written(tmp_path, "\n".join([HEADER + ",consent", *rows])), clips_folder)
    assert [c.path for c in clips] == [
        str(clips_folder / "a.mp4"),
        str(clips_folder / "clips_short_1" / "nested.mp4"),
    ]
    assert [(d.item, d.kind, d.fate, d.rule) for d in decisions] == [
        ("gone", "clip", "dropped", "file_missing"),
        ("b", "clip", "dropped", "consent_refused"),
    ]


def with_cell(column: str, value: str) -> str:
    cells = ROW.split(",")
    cells[HEADER.split(",").index(column)] = value
    return f"{HEADER}\n{ROW.replace('a.mp4', 'b.mp4')}\n{','.join(cells)}\n"


MISTAKES = {
    "renamed": (
        f"{HEADER.replace('fps', 'fsp')}\n{ROW}",
        ["line 1", "'fps' is missing", "did you mean 'fsp'"],
    ),
    "missing": (
        f"{HEADER.replace(',Brief Description', '')}\n",
        ["'Brief Description' is missing", "clip_id"],
    ),
    "twice": (f"{HEADER},Frame_Rate\n{ROW},3", ["['fps', 'Frame_Rate'] all mean 'fps'"]),
    "empty": ("", ["is empty", "clip_id"]),
    "no rows": (f"{HEADER}\n", ["no rows"]),
    "ragged": (f"{HEADER}\n{ROW},more", ["line 2", "9 cells where the header has 8"]),
    "open quote": (f'{HEADER}\n"{ROW}', ["line 2", "not a well-formed CSV"]),
    "nul": (with_cell("clip_id", "a\0.mp4"), ["unsafe"]),
    "fps": (with_cell("fps", "abc"), ["line 3", "'fps'", "'abc'", "a number above 0"]),
    "fps nan": (with_cell("fps", "nan"), ["line 3", "'fps'", "out of range"]),
    "width": (with_cell("frame_width", "12.5"), ["'frame_width'", "'12.5'", "whole number"]),
    "height": (with_cell("frame_height", "-1"), ["'frame_height'", "above 0"]),
    "start": (with_cell("start_time", "noon"), ["'start_time'", "'noon'", "HH:MM:SS.mmm"]),
    "end": (with_cell("end_time", "0"), ["'end_time'", "not after start_time 0 s"]),
    "source": (with_cell("url", " "), ["'url'", "empty"]),
    "duplicate": (with_cell("clip_id", "b.mp4"), ["line 3", "'b.mp4'", "also in line 2"]),
    "duplicate but for the ending": (with_cell("clip_id", "b.MP4"), ["line 3", "'b.MP4'", "also in line 2"]),
    "no name": (with_cell("clip_id", "."), ["unsafe or empty"]),
    "no id": (with_cell("clip_id", ""), ["'clip_id'", "unsafe or empty"]),
    "absolute": (with_cell("clip_id", "/etc/a.mp4"), ["'clip_id'", "'/etc/a.mp4'", "without '..'"]),
    "upwards": (with_cell("clip_id", "x/../../a.mp4"), ["unsafe"]),
    "drive": (with_cell("clip_id", "C:\\a.mp4"), ["unsafe"]),
    "consent": (f"{HEADER},consent\n{ROW},maybe", ["'consent'", "'maybe'", "granted, unknown, refused"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_with_place_value_and_remedy(name, tmp_path, clips_folder):
    text, expected = MISTAKES[name]
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_clips(path, clips_folder)
    for part in [str(path), *expected]:
        assert part in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_other_encodings_are_refused(encoding, tmp_path, clips_folder):
    with pytest.raises(InputError, match="not UTF-8"):
        read_clips(written(tmp_path, f"{HEADER}\n{ROW} à la façon\n", encoding), clips_folder)


def test_paths_that_are_no_file(tmp_path, clips_folder):
    with pytest.raises(InputError, match="leave clips out"):
        read_clips(tmp_path, clips_folder)
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match=r"folder .*void holds no video and no tar; give"):
        read(str(tmp_path / "void"), "", IngestConfig())
    (tmp_path / "clips.xlsx").touch()
    with pytest.raises(InputError, match=r"'.xlsx' is no table that is read here; give \.csv, \.jsonl"):
        read_clips(tmp_path / "clips.xlsx", clips_folder)
    with pytest.raises(InputError, match="does not exist"):
        read_clips(tmp_path / "none.csv", clips_folder)
    with pytest.raises(InputError, match="clips folder"):
        read_clips(written(tmp_path, f"{HEADER}\n{ROW}"), tmp_path / "none")


def test_a_bare_name_that_two_files_have(tmp_path, clips_folder):
    (clips_folder / "clips_short_2").mkdir()
    (clips_folder / "clips_short_2" / "nested.mp4").write_bytes(b"y")
    with pytest.raises(InputError, match="two files have this name"):
        read_clips(written(tmp_path, with_cell("clip_id", "nested.mp4")), clips_folder)


def test_line_numbers_count_line_breaks_inside_cells(tmp_path, clips_folder):
    text = f"{HEADER}\n{ROW.replace('Anna waves', chr(34) + 'two' + chr(10) + 'lines' + chr(34))}\n"
    text += ROW.replace("a.mp4", "b.mp4").replace(",24,", ",x,")
    with pytest.raises(InputError, match="line 4"):
        read_clips(written(tmp_path, text), clips_folder)


IDS = ["a.b.c.mp4", "v1.2/x.mp4", "名前/ü ñ.mp4", "x" * 300 + ".mp4", "...mp4", "-rf.mp4", "a%2e%2e.mp4"]


def test_odd_names_become_keys_that_any_tar_and_shell_can_hold(tmp_path, clips_folder):
    rows = [ROW.replace("a.mp4", name) for name in IDS]
    clips, decisions = read_clips(written(tmp_path, "\n".join([HEADER, *rows])), clips_folder)
    assert clips == [] and [decision.rule for decision in decisions] == ["file_missing"] * len(IDS)
    keys = [decision.item for decision in decisions]
    assert len(set(keys)) == len(IDS) and all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key) for key in keys)


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    "name", ["a\0b.mp4", "../a.mp4", "x/../../etc/a.mp4", "a\u202eb.mp4", "\\\\host\\a.mp4"]
)
def test_names_that_are_no_names(name, ending, tmp_path, clips_folder):
    text = f"{HEADER}\n{ROW.replace('a.mp4', name)}\n"
    if ending == ".jsonl":
        values = dict(zip(HEADER.split(","), ROW.replace("a.mp4", name).split(","), strict=True))
        text = json.dumps(values)
    path = written(tmp_path, text).rename(tmp_path / f"table{ending}")
    with pytest.raises(
        InputError, match=r"line [12], column 'clip_id': .*unsafe or empty path; allowed: a path"
    ):
        read_clips(path, clips_folder)


def test_the_same_clip_twice_in_a_table_of_lines(tmp_path, clips_folder):
    line = json.dumps(dict(zip(HEADER.split(","), ROW.split(","), strict=True)))
    path = written(tmp_path, f"{line}\n{line}\n").rename(tmp_path / "twice.jsonl")
    with pytest.raises(InputError, match=r"twice\.jsonl, line 2, column 'clip_id': 'a\.mp4': also in line 1"):
        read_clips(path, clips_folder)


def test_clips_in_zips_that_may_be_bombs(tmp_path, clips_folder):
    with zipfile.ZipFile(clips_folder / "clips_short_2.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("clips_short_2/good.mp4", b"a film")
        packed.writestr("clips_short_2/bomb.mp4", bytes(10**6))
    rows = [ROW, ROW.replace("a.mp4", "good.mp4"), ROW.replace("a.mp4", "bomb.mp4")]
    clips, decisions = read_clips(written(tmp_path, "\n".join([HEADER, *rows])), clips_folder)
    packed_place = f"zip://clips_short_2/good.mp4::{clips_folder}/clips_short_2.zip"
    assert [clip.path for clip in clips] == [str(clips_folder / "a.mp4"), packed_place]
    assert [(d.item, d.rule, d.limit) for d in decisions] == [("bomb", "zip_bomb", "50 times")]


def test_a_folder_needs_no_table(clips_folder):
    (clips_folder / "a.txt").write_text("Anna waves")
    clips, _ = read(str(clips_folder), "", IngestConfig())
    assert [(clip.source_id, clip.captions.brief) for clip in clips] == [
        ("a.mp4", "Anna waves"),
        ("b.mp4", ""),
        ("clips_short_1/nested.mp4", ""),
    ]


def test_a_file_that_may_not_be_read_is_one_lost_clip(tmp_path, clips_folder, monkeypatch):
    monkeypatch.setattr(
        "os.access", lambda path, mode: not str(path).endswith("a.mp4")
    )  # root reads everything
    text = "\n".join([HEADER, ROW, ROW.replace("a.mp4", "b.mp4")])
    clips, decisions = read_clips(written(tmp_path, text), clips_folder)
    assert [clip.id for clip in clips] == ["b"]
    assert [(d.item, d.rule) for d in decisions] == [("a", "not_readable")]


def test_a_manifest_and_its_clips_in_s3(tmp_path, clips_folder):
    pytest.importorskip("moto")
    text = "\n".join([HEADER, *(ROW.replace("a.mp4", name) for name in ("a.mp4", "nested.mp4", "gone.mp4"))])
    written(tmp_path, text)
    limits = IngestConfig(backoff_s=0.002)  # nobody else's, so that its file system is made for this server
    with s3_lab() as lab:
        place = lab.put(tmp_path, "corpus")
        lab.faults.every = 3
        clips, decisions = read(f"{place}/short.csv", f"{place}/clips", limits)
        assert lab.faults.num_failed > 0
        with pytest.raises(InputError, match=r"manifest s3://castbank-lab/corpus/none\.csv does not exist"):
            read(f"{place}/none.csv", "", limits)
    assert [(clip.id, clip.path) for clip in clips] == [
        ("a", f"{place}/clips/a.mp4"),
        ("nested", f"{place}/clips/clips_short_1/nested.mp4"),
    ]
    assert [(d.item, d.rule, d.value) for d in decisions] == [("gone", "file_missing", "gone.mp4")]
