"""How soon the page of 1,000 evaluated videos is there to look at, in a browser without a screen.

Run by ``make bench`` on an idle machine; figures are printed. The browser's own start is measured and taken off.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from pipeline.judging.pages.comparison import comparison_page
from pipeline.judging.pages.evaluation import evaluation_page
from tests.bench.test_report_speed import BROWSER, opened
from tests.many_evaluations import make_evaluation, make_strips

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

NUM_VIDEOS, TURNS = 1000, 5


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_thousand_videos_open_at_once(tmp_path: Path) -> None:
    content = make_evaluation(NUM_VIDEOS)
    strips = make_strips(content, tmp_path / "frames")
    pages = {
        "empty": "<!doctype html><title>nothing</title>",
        "evaluation": evaluation_page(content, strips, "frames", "evaluation"),
        "comparison": comparison_page({"a": content, "b": make_evaluation(NUM_VIDEOS, gain=0.1)}, {}, "two"),
    }
    took: dict[str, list[float]] = {name: [] for name in pages}
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
    opened((tmp_path / "empty.html").as_uri(), tmp_path / "a.png")
    for _ in range(TURNS):
        for name, seconds in took.items():
            seconds.append(opened((tmp_path / f"{name}.html").as_uri(), tmp_path / "a.png"))
    blank = statistics.median(took["empty"])
    for name in ("evaluation", "comparison"):
        first = statistics.median(took[name]) - blank
        size = len(pages[name]) / 1e6
        print(
            f"\n{NUM_VIDEOS} videos, {name}: {size:.1f} MB, opens in {first:.2f} s, an empty page {blank:.2f} s"
        )
        assert first < 2
