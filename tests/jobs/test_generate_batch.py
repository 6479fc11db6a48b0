"""Many prompts drawn on Ray: what each becomes, what is not drawn again, and what is said of wrong lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_prep.decode import decode_mp4
from jobs.__main__ import main
from jobs.drawing import is_done
from jobs.generate_batch import read_requests
from pipeline.config import GenerateConfig
from tests.small_episode import write_episode
from tests.tiny_run import make_run

SMALL = ["num_frames=2", "height_px=32", "width_px=48", "steps=2"]
CONFIG = GenerateConfig(num_frames=2, height_px=32, width_px=48, steps=2)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), 3, {"anna": 0, "ben": 1, "carla": 2})


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def last_frame(mp4: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(mp4.with_suffix(".last.png"))))[..., ::-1]


def test_a_file_and_a_story_are_drawn_once(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": "Anna waves.", "cast": ["anna"], "seed": 4, "output": "first.mp4"},
        {"prompt": "Ben too.", "cast": ["ben"], "anchor": "previous"},
    ]
    asked = lines(tmp_path / "p.jsonl", *rows)
    words = ["generate", str(run_folder), *SMALL, "--prompts", str(asked), "--workers", "1"]
    words += ["--output", str(tmp_path / "out")]
    assert main(words) == 0
    assert "2 drawn, 0 were there, 0 failed" in capsys.readouterr().out
    first, second = (tmp_path / "out" / name for name in ("first.mp4", "000001.mp4"))
    assert decode_mp4(second.read_bytes()).shape == (2, 32, 48, 3)
    assert np.abs(decode_mp4(second.read_bytes())[0].astype(int) - last_frame(first)).mean() < 8
    note = json.loads(first.with_suffix(".json").read_text())
    assert note["cast"] == ["anna"] and note["config"]["seed"] == 4

    alone = tmp_path / "alone.mp4"
    seeded = ["generate", str(run_folder), *SMALL, "seed=4", "--prompt", "Anna waves.", "--cast", "anna"]
    assert main([*seeded, "--output", str(alone)]) == 0
    assert json.loads(alone.with_suffix(".json").read_text())["video_sha256"] == note["video_sha256"]

    before = first.stat().st_mtime_ns
    second.write_bytes(b"cut short")
    assert main(words) == 0
    assert "1 drawn, 1 were there" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == before and len(second.read_bytes()) > 100
    requests = read_requests(asked, run_folder, None, tmp_path / "out", CONFIG)
    assert all(is_done(request) for request in requests)
    changed = read_requests(asked, run_folder, None, tmp_path / "out", GenerateConfig(steps=3))
    assert not any(is_done(request) for request in changed)


def test_a_story_is_planned_and_drawn(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story, plan = write_episode(tmp_path / "e.json"), tmp_path / "plan.json"
    assert main(["storyboard", "plan", str(run_folder), str(story), "--output", str(plan)]) == 0
    said = capsys.readouterr().out
    assert "Ben is ben; in 1:2, 2:1" in said and "1:2 -> 1_2.mp4, goes on from the shot before" in said
    written = json.loads(plan.read_text())
    assert written["shots"][1]["file"] == "ferry__run1__T40/1_2.mp4"
    assert written["cast_map"] == {"Nora": "anna", "Ben": "ben", "Ivo": "carla"}

    words = [
        "storyboard",
        "draw",
        str(run_folder),
        str(story),
        "--shots",
        "1:1-2,2:2",
        *SMALL,
        "--workers",
        "1",
    ]
    assert main([*words, "--output", str(tmp_path / "story")]) == 0
    folder = tmp_path / "story" / "ferry__run1__T40"
    assert sorted(path.name for path in folder.glob("*.mp4")) == ["1_1.mp4", "1_2.mp4", "2_2.mp4"]
    second = json.loads((folder / "1_2.json").read_text())
    assert second["cast"] == ["ben", "anna"] and "1_1.last.png" in second["command"]
    begun = decode_mp4((folder / "1_2.mp4").read_bytes())[0].astype(int)
    assert np.abs(begun - last_frame(folder / "1_1.mp4")).mean() < 8


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"cast": ["anna"]}, "line 1: a line is an object with a prompt"),
        ({"prompt": "Anna waves.", "cast": "anna"}, "line 1: cast: came 'anna'; give a list"),
        ({"prompt": "Anna waves.", "stepz": 3}, "line 1: stepz: no such field; did you mean 'steps'"),
        (
            {"prompt": "Anna waves.", "anchor": "previous"},
            "line 1: anchor: 'previous' came in the first line",
        ),
        ({"prompt": "Anna waves.", "output": "../x.mp4"}, "line 1: output: '../x.mp4'"),
        (
            {"prompt": "Dora waves.", "cast": ["dora"]},
            "000000.mp4: cast: dora not in the bank; it holds anna, ben",
        ),
        ({"prompt": "Dora waves.", "cast": ["anna"]}, "names nobody of the cast (anna)"),
        ({"prompt": "Anna waves.", "height_px": 40}, "height_px: 40"),
        ({"prompt": "Anna waves.", "strength": -1}, "0.7 to 0.85"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_drawn(
    row: dict[str, Any], message: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, output = lines(tmp_path / "p.jsonl", row), tmp_path / "out"
    assert main(["generate", str(run_folder), *SMALL, "--prompts", str(asked), "--output", str(output)]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_what_a_story_cannot_be_is_named(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = write_episode(tmp_path / "e.json")
    for more, message in (
        (["--cast-map", "Nora"], "--cast-map: came 'Nora'"),
        (["--cast-map", "Nora=dora"], "'dora' is not in the bank"),
        (["--shots", "7"], "'7' names no shot"),
        (["strength=-1"], "0.7 to 0.85"),
    ):
        assert main(["storyboard", "plan", str(run_folder), str(story), *more]) == 2
        assert message in capsys.readouterr().err
