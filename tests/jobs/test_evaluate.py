"""``castbank evaluate`` as a person runs it: pictures or a bank as references, what it writes, what it refuses."""

from __future__ import annotations

import json
import shutil
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
        "evaluated",
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


@pytest.fixture(scope="module")
def trained(footage: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that made two sample videos, with the bank of its export."""
    from pipeline.identity.bank import BankEntry, IdentityBank

    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("runs") / "first"
    from_pictures = load_references(pictures).galleries[0]
    IdentityBank(
        BankEntry(name, torch.zeros(4, 8), torch.from_numpy(faces), pack=from_pictures.pack)
        for name, faces in from_pictures.faces.items()
    ).save(folder / "export" / "bank")
    (folder / "samples").mkdir()
    for key, cast in {"a-w000": ["Nora", "Oscar"], "b-w001": ["Oscar"]}.items():
        shutil.copy(footage / "clips" / "cafe-01.mp4", folder / "samples" / f"{key}.mp4")
        (folder / "samples" / f"{key}.png").write_bytes(b"a contact sheet")
        (folder / "samples" / f"{key}.json").write_text(json.dumps({"prompt": "They talk.", "cast": cast}))
    return folder


def test_a_run_stands_for_its_samples_their_casts_and_its_bank(trained: Path) -> None:
    assert main(["evaluate", str(trained), "--every", "36", "--output", "judged"]) == 0
    first, second = json.loads(Path("judged/evaluation.json").read_text())["videos"]
    assert [Path(one["video"]).name for one in (first, second)] == ["a-w000.mp4", "b-w001.mp4"]
    assert (first["cast"], second["cast"]) == (["Nora", "Oscar"], ["Oscar"])
    assert [scores["pack"] for scores in first["scores"]] == ["embedded"]
    assert first["scores"][0]["similarity"][0][0] > first["scores"][0]["same_person"]


@pytest.mark.parametrize("place", ["", "export", "export/bank"])
def test_a_run_its_export_and_its_bank_are_references(trained: Path, place: str) -> None:
    (gallery,) = load_references(trained / place).galleries
    assert set(gallery.faces) == set(CAST)


def test_a_bank_of_another_recogniser_than_it_says_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.identity.bank import BankEntry, IdentityBank

    torch = pytest.importorskip("torch")
    IdentityBank([BankEntry("Nora", torch.zeros(4, 8), torch.eye(192)[:1], pack="embedded")]).save(
        Path("bank")
    )
    Path("a.mp4").touch()
    assert main(["evaluate", "a.mp4", "--references", "bank"]) == 2
    assert "names embedded, which makes 512 numbers of a face; 'Nora' has 192" in capsys.readouterr().err


def test_a_run_that_ended_early_goes_on_and_leaves_nothing_half_written(
    footage: Path, pictures: Path
) -> None:
    for name in ("a", "b"):
        shutil.copy(footage / "clips" / "cafe-01.mp4", f"{name}.mp4")
    Path("b.mp4").write_bytes(Path("b.mp4").read_bytes()[:20_000])
    command = [
        "evaluate",
        "a.mp4",
        "b.mp4",
        "--references",
        str(pictures),
        "--every",
        "54",
        "--output",
        "judged",
    ]
    assert main(command) == 2
    (kept,) = Path("judged/evaluated").glob("a-*.json")
    written = kept.stat().st_mtime_ns
    assert not Path("judged/evaluation.json").exists()
    half = Path("judged/evaluated") / f".{kept.name}.k3j2"  # as a kill in the middle of a write leaves it
    half.write_text("{")
    Path("judged/evaluated/mine.txt").write_text("not ours")
    shutil.copy(footage / "clips" / "cafe-01.mp4", "b.mp4")
    assert main(command) == 0
    assert kept.stat().st_mtime_ns == written
    assert not half.exists()
    assert Path("judged/evaluated/mine.txt").exists()
    content = json.loads(Path("judged/evaluation.json").read_text())
    assert content["videos"][0]["figures"] == content["videos"][1]["figures"]
    likeness = content["figures"]["likeness/embedded"]
    assert likeness["num"] == 2
    assert likeness["low"] == likeness["mean"] == likeness["high"]


def test_is_b_better_than_a(footage: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same name pairs two videos; with one pair nothing can be said, and that is said."""
    for name, clip in {"a": "cafe-01", "b": "cafe-02"}.items():
        Path(name).mkdir()
        shutil.copy(footage / "clips" / f"{clip}.mp4", f"{name}/scene.mp4")
        command = ["evaluate", f"{name}/scene.mp4", "--references", str(pictures), "--every", "54"]
        assert (
            main(
                [*command, "--output", f"judged-{name}", *(["--against", "judged-a"] if name == "b" else [])]
            )
            == 0
        )
    assert "likeness/embedded: too few pairs to say, it takes 6" in capsys.readouterr().out
    rows = {row["name"]: row for row in json.loads(Path("judged-b/evaluation.json").read_text())["against"]}
    assert rows["present/embedded"]["mean_a"] == 1
    assert rows["present/embedded"]["mean_b"] == 0.5  # Nora is not in that clip
    assert rows["missing/embedded"]["difference"]["mean"] == 1


def test_an_episode_against_its_schedule(
    footage: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Shots as EntityBench's evaluator wants them; Nora is scheduled in a shot that shows Oscar without her."""
    Path("tale").mkdir()
    for shot, clip in {"1_1": "cafe-01", "1_2": "cafe-02"}.items():
        shutil.copy(footage / "clips" / f"{clip}.mp4", f"tale/{shot}.mp4")
    both = {"characters": ["Nora", "Oscar"], "places": ["a cafe"], "objects": []}
    Path("tale.json").write_text(json.dumps({"entity_schedule": {"1:1": both, "1:2": both}}))
    command = ["evaluate", "tale", "--schedule", "tale.json", "--references", str(pictures), "--every", "54"]
    assert main([*command, "--output", "judged"]) == 0
    assert "gap of 1 shots: likeness" in capsys.readouterr().out
    episode = json.loads(Path("judged/evaluation.json").read_text())["episode"]
    assert episode["figures"]["presence_recall/embedded"] == 0.75
    assert episode["figures"]["presence_precision/embedded"] == 1
    assert episode["figures"]["shot_likeness/embedded"] > 0.5  # Oscar's alone
    assert episode["recognisers"][0]["recurrence"]["num_pairs"] == [1]


@pytest.mark.parametrize(
    ("made", "arguments", "message"),
    [
        (["run.json"], ["RUN"], "this run has no sample videos yet"),
        (["samples/none.txt"], ["RUN"], "this run has no sample videos yet"),
        (["samples/a.mp4"], ["RUN"], "this run has no identity bank yet"),
        (["samples/a.mp4", "other/samples/a.mp4"], ["RUN", "RUN/other"], "came 2 runs: "),
        (["clip.mp4"], ["RUN/clip.mp4"], "--references: no run is given as VIDEO"),
        (["clip.mp4"], ["RUN"], "is a folder, and no run's; give a video file, or the folder of a run"),
    ],
)
def test_a_run_that_is_not_ready_is_one_line(
    made: list[str],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place in made:
        (tmp_path / "run" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / place).touch()
    given = [argument.replace("RUN", str(tmp_path / "run")) for argument in arguments]
    assert main(["evaluate", *given, "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


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
        (["VIDEO", "--references", "mixed"], "those of 'Nora' show two people"),
        (["VIDEO", "--references", "group"], "2 faces in group/Nora.png"),
        (
            ["VIDEO", "--references", "PICTURES", "--layout", "square.png"],
            "100x100 pixels, and VIDEO has frames of 960x",
        ),
        (["VIDEO", "--references", "PICTURES", "--against", "noted.json"], "no evaluation.json"),
        (
            ["VIDEO", "--references", "PICTURES", "--against", "other.json"],
            "none of its 1 videos pairs with one of",
        ),
        (["VIDEO", "--references", "PICTURES", "--schedule", "noted.json"], "noted.json is no schedule"),
        (["empty", "--references", "PICTURES", "--schedule", "story.json"], "name them 1_1.mp4 and so on"),
        (["VIDEO", "--references", "PICTURES", "--schedule", "story.json"], "nothing about shot 'meadow-01'"),
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
    for name in ("mixed/Nora", "group"):
        Path(name).mkdir(parents=True)
    shutil.copy(pictures / "Nora.png", "mixed/Nora/one.png")
    shutil.copy(pictures / "Oscar" / "one.png", "mixed/Nora/two.png")
    heads = [cv2.imread(str(pictures / name)) for name in ("Nora.png", "Oscar/one.png")]
    cv2.imwrite("group/Nora.png", np.hstack([cv2.resize(head, (300, 300)) for head in heads]))
    cv2.imwrite("square.png", np.ones((100, 100), np.uint8))
    Path("other.json").write_text(json.dumps({"schema": 1, "videos": [{"key": "b", "figures": {}}]}))
    Path("story.json").write_text(json.dumps({"1_1": ["Nora"]}))
    given = {"PICTURES": str(pictures), "VIDEO": str(video)}
    assert main(["evaluate", "--output", "out", *(given.get(a, a) for a in arguments)]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("castbank")]
    assert len(error) == 1
    assert message.replace("VIDEO", str(video)) in error[0]
    assert not Path("out").exists()
