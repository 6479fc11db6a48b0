"""Each suite's formats, by small files written here in the shape that its repository documents."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.records import InputError
from pipeline.suites.registry import SUITES
from pipeline.suites.suite import generation_rows


def dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_opens2v(tmp_path: Path) -> None:
    listed = {
        "singleface_1": {
            "img_paths": ["Images/man/1.jpg"],
            "prompt": "A man reads. ",
            "class_label": ["man"],
        },
        "multiface_2": {"img_paths": ["Images/woman/1.jpg", "Images/man/2.jpg"], "prompt": "Two talk."},
    }
    path = dump(tmp_path / "Human-Domain_Eval.json", listed)
    rows = generation_rows(SUITES["opens2v"].prompts(path), Path("made"), ["anna"], 7, tmp_path)
    assert rows[0] == {
        "prompt": "A man reads.",
        "cast": ["singleface_1-1"],
        "seed": 7,
        "output": "made/singleface_1.mp4",
        "references": {"singleface_1-1": [str(tmp_path / "Images/man/1.jpg")]},
    }
    assert rows[1]["cast"] == ["multiface_2-1", "multiface_2-2"] and rows[1]["seed"] == 8
    dump(tmp_path / "out/facesim.json", {"singleface_1": {"cur_score": 0.4, "arc_score": 0.5}})
    dump(tmp_path / "out/gmescore.json", {"singleface_1": {"gme_score": 0.7}, "x_2": {"gme_score": 0.5}})
    for asked, answer in enumerate(("4", "3", "cannot say")):
        dump(tmp_path / f"out/naturalscore_{asked}.json", {"singleface_1": answer})
    found = SUITES["opens2v"].results(tmp_path / "out")
    assert found.videos["singleface_1"] == {
        "FaceSim-Cur": 0.4,
        "FaceSim-Arc": 0.5,
        "GmeScore": 0.7,
        "NaturalScore": 3.5,
    }
    assert found.figures["GmeScore"] == pytest.approx(0.6)


def test_compbench(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/1_consistent_attr.txt").write_text("A red cat\n\nA blue dog\n")
    (tmp_path / "prompts/7_numeracy.txt").write_text("Two geese\n")
    found = SUITES["compbench"].prompts(tmp_path / "prompts")
    assert [(one.prompt, one.output) for one in found] == [
        ("A red cat", "consistent_attr/0001.mp4"),
        ("A blue dog", "consistent_attr/0002.mp4"),
        ("Two geese", "generative_numeracy/0001.mp4"),
    ]
    meta = dump(tmp_path / "spatial_relationships.json", [{"prompt": "A cat on a box", "spatial": "on"}])
    (one,) = SUITES["compbench"].prompts(meta)
    assert one.output == "spatial_relationships/0001.mp4"
    with (tmp_path / "ours_consistent_attr_score.csv").open("w", newline="") as file:
        rows = [["name", "prompt", "answer_1", "answer_2", "Score"], ["0001.png", "A red cat", "x", "y", "5"]]
        csv.writer(file).writerows(
            [*rows, ["0002.png", "A blue dog", "x", "y", "bad reply"], ["score: ", "1.0"]]
        )
    results = SUITES["compbench"].results(tmp_path)
    assert results.figures == {"consistent_attr": 1.0}
    assert results.videos == {"consistent_attr/0001": {"consistent_attr_raw": 5.0}}


def test_vbench2(tmp_path: Path) -> None:
    long = "A story " * 40
    (tmp_path / "prompt").mkdir()
    (tmp_path / "prompt/Diversity.txt").write_text("A man plays.\n")
    (tmp_path / "prompt/Complex_Plot.txt").write_text(f"{long.strip()}\n")
    found = SUITES["vbench2"].prompts(tmp_path / "prompt")
    assert len(found) == 23
    assert found[0].output == f"Complex_Plot/{long[:180]}-0.mp4" and found[0].prompt == long.strip()
    assert found[-1].output == "Diversity/A man plays.-19.mp4"
    rows = generation_rows(found, Path("made"), ["anna"], 0, tmp_path)
    assert len({row["seed"] for row in rows}) == 23 and rows[5]["cast"] == ["anna"]
    entry = {"prompt_en": "A man runs.", "dimension": ["Human_Identity", "Human_Anatomy"]}
    info = dump(tmp_path / "VBench2_full_info.json", [entry, entry])
    assert [one.output for one in SUITES["vbench2"].prompts(info)] == [
        f"A man runs.-{k}.mp4" for k in range(3)
    ]
    videos = [
        {"video_path": "made/Human_Identity/A man runs.-0.mp4", "video_results": 0.9},
        {"video_path": "made/Human_Identity/A man runs.-1.mp4", "video_results": -1},
    ]
    dump(tmp_path / "results_1_eval_results.json", {"Human_Identity": [0.9, videos]})
    results = SUITES["vbench2"].results(tmp_path)
    assert results.figures == {"Human_Identity": 0.9}
    assert results.videos == {"Human_Identity/A man runs.-0": {"Human_Identity": 0.9}}


def test_entitybench(tmp_path: Path) -> None:
    story = {
        "scenes": [
            {"scene_num": 1, "video_prompts": ["Mei: a cook.\nMei cooks.", "The pan."], "cut": [True, False]},
            {"scene_num": 2, "video_prompts": ["Mei meets Bo."], "cut": [True]},
        ],
        "entity_schedule": {"1:1": {"characters": ["Mei"]}, "2:1": {"characters": ["Bo", "Mei"]}},
    }
    dump(tmp_path / "scripts/ep__1.json", story)
    found = SUITES["entitybench"].prompts(tmp_path / "scripts")
    assert [(one.output, one.cast) for one in found] == [
        ("ep__1/001_001.mp4", ("Mei",)),
        ("ep__1/001_002.mp4", ()),
        ("ep__1/002_001.mp4", ("Bo", "Mei")),
    ]
    result = {
        "episode_id": "ep__1",
        "metrics": {"cs_face": {"value": 0.6, "n_evaluated": 3}, "cs_object": {"value": None}},
        "vbench_means": {"motion_smoothness": {"value": 0.98}},
    }
    dump(tmp_path / "out/ep__1.json", result)
    dump(tmp_path / "out/run_manifest.json", {"method_name": "ours"})
    results = SUITES["entitybench"].results(tmp_path / "out")
    assert results.figures == {"cs_face": 0.6, "vbench_motion_smoothness": 0.98}


@pytest.mark.parametrize("suite", SUITES)
def test_nothing_of_the_suite(suite: str, tmp_path: Path) -> None:
    for read in (SUITES[suite].prompts, SUITES[suite].results):
        with pytest.raises(InputError, match=r"give |no such file|is no JSON"):
            read(tmp_path)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    odd = dump(tmp_path / "odd.json", ["?"])
    for suite in ("opens2v", "vbench2", "entitybench"):
        with pytest.raises(InputError, match=r"odd\.json"):
            SUITES[suite].prompts(odd)
    with pytest.raises(InputError, match="'odd' is no category of T2V-CompBench"):
        SUITES["compbench"].prompts(odd)
    (tmp_path / "half_dynamic_attr_score.csv").write_text("name,prompt,Score\n0001,x,0.5\n")
    with pytest.raises(InputError, match="last line is no score; let T2V-CompBench's evaluator finish"):
        SUITES["compbench"].results(tmp_path)
    twice = dump(tmp_path / "ep.json", {"scenes": [{"scene_num": 1, "video_prompts": ["a"]}] * 2})
    with pytest.raises(InputError, match=r"two prompts would both be 'ep/001_001\.mp4'"):
        SUITES["entitybench"].prompts(twice)
