"""``castbank evaluate`` as a person runs it: pictures or a bank as references, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.decode import iter_frames
from data_prep.footage import ClipTruth
from jobs.__main__ import main
from jobs.evaluate import load_references

CAST = {"Nora": "cafe-03", "Oscar": "cafe-02"}  # both are in cafe-01; references come from elsewhere


@pytest.fixture(autouse=True)
def in_own_folder(face_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASTBANK_HOME", str(face_home))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def pictures(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``Nora.png`` and ``Oscar/one.png``: heads cut out of other clips where the ground truth says they are."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, clip in CAST.items():
        truth = ClipTruth.load(footage / "truth" / f"{clip}.npz")
        person = truth.people.index(name)
        frame = int(np.nanargmax(truth.visibility[:, person]))
        images = np.concatenate([chunk.frames for chunk in iter_frames(footage / "clips" / f"{clip}.mp4")])
        x1, y1, x2, y2 = (int(v) for v in truth.boxes_px[frame, person])
        margin = (x2 - x1) // 2
        head = images[frame][max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin]
        path = folder / f"{name}.png" if name == "Nora" else folder / name / "one.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), head[..., ::-1])
    return folder


def test_pictures_to_a_table_a_picture_and_a_page(
    footage: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = str(footage / "clips" / "cafe-01.mp4")
    assert (
        main(["evaluate", video, "--references", str(pictures), "--every", "12", "--output", "judged"]) == 0
    )
    assert "embedded_alt: swapped 0.0%" in capsys.readouterr().out
    assert sorted(p.name for p in Path("judged").iterdir()) == [
        "00-cafe-01.png",
        "evaluation.html",
        "evaluation.json",
    ]
    (result,) = json.loads(Path("judged/evaluation.json").read_text())["videos"]
    assert result["cast"] == ["Nora", "Oscar"]
    assert result["num_frames"] == 9
    for scores in result["scores"]:
        matrix = np.array(scores["similarity"])
        assert np.diagonal(matrix).min() > scores["same_person"] > max(matrix[0, 1], matrix[1, 0])


def test_the_note_beside_a_generated_video_names_its_cast(footage: Path, pictures: Path) -> None:
    Path("made.mp4").write_bytes((footage / "clips" / "cafe-01.mp4").read_bytes())
    Path("made.json").write_text(json.dumps({"cast": ["Oscar"]}))
    assert main(["evaluate", "made.mp4", "--references", str(pictures), "--every", "36"]) == 0
    (result,) = json.loads(Path("evaluation/evaluation.json").read_text())["videos"]
    assert result["cast"] == ["Oscar"]
    assert result["scores"][0]["margin"] == [None]  # nobody else to bleed into


def test_a_bank_serves_with_the_recogniser_it_was_made_with(pictures: Path) -> None:
    from pipeline.identity.bank import BankEntry, IdentityBank

    torch = pytest.importorskip("torch")
    from_pictures = load_references(pictures).galleries[0]
    entries = [
        BankEntry(name, torch.zeros(4, 8), torch.from_numpy(faces), pack=from_pictures.pack)
        for name, faces in from_pictures.faces.items()
    ]
    IdentityBank(entries).save(Path("bank"))
    (from_bank,) = load_references(Path("bank")).galleries
    assert from_bank.pack == "embedded"
    assert from_bank.faces.keys() == from_pictures.faces.keys()
    assert all(np.array_equal(from_bank.faces[n], from_pictures.faces[n]) for n in from_bank.faces)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.mp4", "--references", "PICTURES"], "absent.mp4: not found"),
        ([".", "--references", "PICTURES"], "is a folder"),
        (["torn.mp4", "--references", "PICTURES"], "torn.mp4"),
        (["VIDEO", "--references", "nowhere"], "nowhere is not a folder"),
        (["VIDEO", "--references", "empty"], "no picture in empty"),
        (["VIDEO", "--references", "faceless"], "no face found in faceless/noise.png"),
        (["VIDEO", "--references", "PICTURES", "--cast", "Nora,Zoe"], "no reference face of 'Zoe'"),
        (["VIDEO", "--references", "PICTURES", "--layout", "torn.mp4"], "not an 8-bit grey PNG"),
        (["VIDEO", "--references", "PICTURES", "--every", "0"], "--every: came 0"),
        (["VIDEO", "--references", "PICTURES", "--cast", " ,"], "--cast: nobody"),
        (["noted.mp4", "--references", "PICTURES"], "noted.json: is no note of castbank generate"),
        (["VIDEO", "--references", "PICTURES", "--output", "torn.mp4/x"], "torn.mp4 is not a folder"),
    ],
)
def test_wrong_input_is_one_line_exit_2_and_nothing_written(
    arguments: list[str], message: str, footage: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = footage / "clips" / "meadow-01.mp4"
    Path("torn.mp4").write_bytes(video.read_bytes()[:20_000])
    Path("noted.mp4").write_bytes(video.read_bytes())
    Path("noted.json").write_text("{torn")
    Path("empty").mkdir()
    Path("faceless").mkdir()
    cv2.imwrite("faceless/noise.png", np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    given = {"PICTURES": str(pictures), "VIDEO": str(video)}
    assert main(["evaluate", "--output", "out", *(given.get(a, a) for a in arguments)]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("castbank")]
    assert len(error) == 1
    assert message in error[0]
    assert not Path("out").exists()
