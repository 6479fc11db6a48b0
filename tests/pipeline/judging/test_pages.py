"""The pages as data and as a browser draws them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from data_prep.records import InputError
from pipeline.judging.pages.comparison import comparison_page, forest
from pipeline.judging.pages.evaluation import evaluation_page, mean_matrices, worst_first
from tests.many_evaluations import make_evaluation, make_strips

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def drawn(page: str, folder: Path) -> str:
    """The page's elements after its script has run."""
    assert BROWSER is not None
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], check=True, capture_output=True, text=True, timeout=300
    )
    return done.stdout.split("</script>")[-1] + done.stdout.split("<script")[0]


def test_rows_are_worst_first_and_nobody_seen_before_all(tmp_path: Path) -> None:
    content = make_evaluation(70)
    content["videos"][33]["figures"]["margin_lowest/embedded"] = None
    strips = make_strips(content, tmp_path / "frames")
    found = data_of(evaluation_page(content, strips, "frames", "A <b>title</b>"))
    assert found["columns"][0]["name"] == "margin_lowest/embedded"
    margins = [clip["values"][0] for clip in found["clips"]]
    assert margins[0] is None and margins[1:] == sorted(margins[1:])
    assert found["clips"][0]["key"] == content["videos"][33]["key"]
    inside = [clip["strip"].startswith("data:image/jpeg;base64,") for clip in found["clips"]]
    assert inside == [True] * 60 + [False] * 10
    assert all((tmp_path / clip["strip"]).is_file() for clip in found["clips"][60:])
    assert max(len(pack["own"]) for clip in found["clips"] for pack in clip["packs"]) <= 60
    by_lower = worst_first(content["videos"], ["bleed/embedded"])
    bleed = [content["videos"][at]["figures"]["bleed/embedded"] for at in by_lower]
    assert bleed == sorted(bleed, reverse=True)


def test_the_mean_matrix_is_over_the_videos_that_have_the_pair() -> None:
    def video(cast: list[str], rows: list[list[float | None]]) -> dict[str, Any]:
        return {"cast": cast, "scores": [{"pack": "p", "same_person": 0.4, "similarity": rows}]}

    (found,) = mean_matrices(
        [video(["b", "a"], [[0.5, 0.1], [0.2, 0.9]]), video(["a", "c"], [[0.7, None], [None, None]])]
    )
    assert found["cast"] == ["a", "b"]
    assert found["matrix"] == [[0.8, 0.2], [0.1, 0.5]]


def test_no_text_of_a_prompt_ends_the_script(tmp_path: Path) -> None:
    content = make_evaluation(2)
    content["videos"][0]["key"] = "</script><script>alert(1)</script> $data"
    page = evaluation_page(content, {}, "frames", "t")
    assert data_of(page)["clips"] and "<script>alert" not in page
    assert {clip["key"] for clip in data_of(page)["clips"]} == {row["key"] for row in content["videos"]}


def test_a_comparison_says_who_is_better_over_the_same_seeds() -> None:
    first, second = make_evaluation(30), make_evaluation(30, gain=0.1)
    second["videos"].pop()
    found = data_of(comparison_page({"none": first, "bank": second}, {}, "t"))
    rows = {row["name"]: row for row in found["rows"]}
    likeness = rows["likeness/embedded"]["against"]
    assert likeness[0] is None
    assert (likeness[1]["verdict"], likeness[1]["num"]) == ("better", 29)
    assert likeness[1]["mean"] == pytest.approx(0.1, abs=1e-3)
    assert rows["motion"]["against"][1]["verdict"] == "undecided"
    assert len(found["pairs"]) == 29
    with pytest.raises(InputError, match="give two or more"):
        comparison_page({"one": first}, {}, "t")


def test_forest_puts_larger_values_to_the_right() -> None:
    places = [
        float(x) for x in re.findall(r'cx="([\d.]+)"', forest([[0.1, 0.0, 0.2], [0.5, 0.4, 0.6], [None] * 3]))
    ]
    assert len(places) == 2 and places[0] < places[1]
    assert forest([[None, None, None]]) == ""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_browser_draws_both(tmp_path: Path) -> None:
    content = make_evaluation(120)
    strips = make_strips(content, tmp_path / "frames")
    shown = drawn(evaluation_page(content, strips, "frames", "seen"), tmp_path)
    assert "120 of 120" in shown and shown.count('class="clip"') >= 40 and "margin<br>" not in shown
    shown = drawn(comparison_page({"a": content, "b": make_evaluation(120, gain=0.1)}, {}, "two"), tmp_path)
    assert "120 pairs" in shown and ">better</span>" in shown
