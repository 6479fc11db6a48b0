"""How soon a report of 10,000 samples is there to look at, in a browser without a screen.

Run by ``make bench`` on an idle machine; figures are printed. The browser's own start is measured and taken off.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from data_prep.report import write_report
from tests.many_shards import make_many

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
NUM_SAMPLES, NUM_PEOPLE, TURNS = 10_000, 3_000, 5


def opened(address: str, picture: Path) -> float:
    """Seconds until the browser has drawn the page and is gone."""
    assert BROWSER is not None
    how = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,1600"]
    start_s = time.perf_counter()
    command = [
        BROWSER,
        *how,
        f"--user-data-dir={picture.parent / 'profile'}",
        f"--screenshot={picture}",
        address,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return time.perf_counter() - start_s


@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
def test_a_report_of_ten_thousand_samples_opens_at_once(tmp_path: Path) -> None:
    shards = make_many(tmp_path / "shards", NUM_SAMPLES, NUM_PEOPLE)
    start_s = time.perf_counter()
    front = write_report(shards, tmp_path / "report.html", lambda *_: None, num_shown=NUM_SAMPLES)
    wrote_s = time.perf_counter() - start_s
    pages = sorted((tmp_path / "report.pages").iterdir())
    page = next(path for path in pages if path.name.startswith("samples"))
    empty = tmp_path / "empty.html"
    empty.write_text("<!doctype html><title>nothing</title>")
    opened(empty.as_uri(), tmp_path / "a.png")
    took = {path: [] for path in (empty, front, page)}  # type: dict[Path, list[float]]
    for _ in range(TURNS):
        for path, seconds in took.items():
            seconds.append(opened(path.as_uri(), tmp_path / "a.png"))
    blank, first, other = (statistics.median(seconds) for seconds in took.values())
    size = f"{len(pages)} pages, {wrote_s:.0f} s; front {front.stat().st_size / 1e6:.1f} MB"
    print(
        f"\n{NUM_SAMPLES} samples, {NUM_PEOPLE} people: {size}, "
        f"opens in {first - blank:.2f} s, another page {other - blank:.2f} s, an empty one {blank:.2f} s"
    )
    assert first - blank < 2
    assert other - blank < 2
