"""The report: what it shows of made shards, that it shows it safely, and the charts' numbers."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from data_prep import ledger
from data_prep.records import Captions, Decision, InputError
from data_prep.report import write_report
from data_prep.report.charts import Histogram, svg
from data_prep.report.pictures import contact_sheet
from data_prep.report.plots import calibration_plot, save_plots
from data_prep.shards import CastMember, ReferenceNote, Sample, SampleNote, write_index, write_shard
from data_prep.video.encode import encode_mp4
from tests.many_shards import make_many

FRAMES, HEIGHT, WIDTH = 9, 48, 80


def quiet(stage: str, done: int, total: int) -> None:
    """Nobody watches."""


def sample(key: str) -> Sample:
    """Grey frames; person 1 a square on the left, person 2 on the right."""
    label_map = np.zeros((FRAMES, HEIGHT, WIDTH), np.uint8)
    label_map[:, 10:30, 10:30] = 1
    label_map[:, 10:30, 50:70] = 2
    boxes = [((left, 10.0, left + 20.0, 30.0),) * FRAMES for left in (10.0, 50.0)]
    note = SampleNote(
        key=key,
        clip_id="here",
        source_id="film <b>",
        shot=0,
        window=0,
        start_s=1.0,
        end_s=1.7,
        frames=tuple(range(FRAMES)),
        frame_times_s=tuple(at / 12 for at in range(FRAMES)),
        fps=12.0,
        width_px=WIDTH,
        height_px=HEIGHT,
        cast=tuple(CastMember(slot, f"c{slot}", f"<person-{slot}> is there.") for slot in (1, 2)),
        references=tuple(tuple(reference(slot, n) for n in range(3)) for slot in (1, 2)),
        boxes_px=tuple(boxes),
        captions=Captions(),
        guard_gap_s=1.0,
    )
    faces = tuple(np.full((3, 112, 112, 3), 60 * slot, np.uint8) for slot in (1, 2))
    mp4 = encode_mp4(np.full((FRAMES, HEIGHT, WIDTH, 3), 128, np.uint8), 12.0)
    return Sample(
        note,
        mp4,
        label_map,
        faces,
        "<person-1> is there. <person-2> says <script>alert(1)</script> & <person-9>.",
    )


def reference(slot: int, number: int) -> ReferenceNote:
    return ReferenceNote(
        character_id=f"c{slot}",
        clip_id="there",
        source_id="film <b>",
        track_id="there-t0",
        frame=number,
        time_s=0.1,
        origin="other_clip",
        time_gap_s=12.34,
        similarity=0.71,
        yaw_deg=-8.0,
        yaw_difference_deg=21.0,
        sharpness=99.0,
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "shards"
    folder.mkdir()
    rows = write_shard(folder / "shard-000000.tar", [sample(f"here-{at:04d}") for at in range(5)])
    dropped = Decision(
        "here-0009",
        "window",
        "dropped",
        "select",
        "too_few_references",
        "1",
        ">= 3",
        detail="c1: <4> score < 0.8",
    )
    crash = Decision(
        "bad",
        "clip",
        "quarantined",
        "analyse",
        "failed",
        "3",
        "3 attempts",
        "WorkerCrashedError",
        3,
        "Aborted",
        "castbank x",
    )
    ledger.write(folder / ledger.LEDGER, [dropped, crash, Decision("here", "clip", "kept", "analyse")])
    write_index(
        folder, rows, "inputs", {"num_clips": 2, "num_clips_kept": 1, "limits": {"min_similarity": 0.4}}
    )
    return folder


class Page(HTMLParser):
    """Collects tags that do not close, images and text."""

    VOID = frozenset({"meta", "img", "br", "rect", "line"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.images: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(str(dict(attrs)["src"]))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_shows_every_sample_and_every_loss(shards: Path, tmp_path: Path) -> None:
    page = Page(write_report(shards, tmp_path / "new" / "page.html", quiet).read_text())
    text = " ".join(page.words)
    assert page.open == []
    for wanted in (
        "here-0000",
        "here-0004",
        "other clip",
        "12.3 s away",
        "0.71",
        "-8° (+21°)",
        "too_few_references",
    ):
        assert wanted in text
    for wanted in ("WorkerCrashedError", "castbank x", "c1: <4> score < 0.8", "film <b>", "5 samples"):
        assert wanted in text
    assert all(image.startswith("data:image/jpeg;base64,") for image in page.images)
    assert len(page.images) == 2 + 5 * (1 + 6)


def test_captions_and_names_cannot_inject_anything(shards: Path, tmp_path: Path) -> None:
    page = Page(write_report(shards, tmp_path / "page.html", quiet).read_text())
    assert not {"script", "b-", "link", "iframe"} & set(page.tags)
    assert "<script>alert(1)</script> & " in "".join(page.words)
    assert "<person-9>" in "".join(page.words)


def test_fewer_samples_are_shown_when_asked_and_the_page_says_so(shards: Path, tmp_path: Path) -> None:
    html = write_report(shards, tmp_path / "page.html", quiet, num_shown=2).read_text()
    assert "2 of 5, evenly spaced" in html
    assert "<code>here-0000</code>" in html
    assert "<code>here-0002</code>" not in html


def test_a_folder_that_is_unfinished_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with pytest.raises(InputError, match="unfinished"):
        write_report(tmp_path / "shards", tmp_path / "page.html", quiet)
    assert not (tmp_path / "page.html").exists()


def test_people_are_tinted_in_their_own_colour_where_the_label_map_says() -> None:
    uri = contact_sheet(sample("here-0000"), ["#ff0000", "#0000ff"])
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    sheet = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB).astype(int)
    scale = 200 / HEIGHT
    left, right, nobody = (sheet[round(22 * scale), round(x * scale)] for x in (22, 62, 40))
    assert left[0] > left[2] + 40
    assert right[2] > right[0] + 40
    assert np.ptp(nobody) < 12


def test_bars_hold_the_counts_that_numpy_finds() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.3, 500)
    drawn = svg(Histogram("x", list(values), 0.0, 1.0, 10, marks=(0.4,)))
    counts = [int(n) for n in re.findall(r": (\d+)</title>", drawn)]
    assert counts == np.histogram(values.clip(0, 1), 10, (0, 1))[0].tolist()
    heights = [float(h) for h in re.findall(r'class="bar"[^>]* height="([\d.]+)"', drawn)]
    assert heights == pytest.approx([n / max(counts) * max(heights) for n in counts], abs=0.06)
    assert drawn.count('class="mark"') == 1


def test_nothing_to_draw_is_said() -> None:
    assert "nothing to show" in svg(Histogram("x", [], 0.0, 1.0, 10))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_many(tmp_path_factory.mktemp("many") / "shards", 130, 100)


def test_many_samples_and_people_are_on_pages_that_lead_to_each_other(many: Path, tmp_path: Path) -> None:
    front = write_report(many, tmp_path / "a report.html", quiet, num_shown=130)
    pages = {path.name: path.read_text() for path in sorted((tmp_path / "a report.pages").iterdir())}
    assert sorted(pages) == [
        *(f"characters-{n:04d}.html" for n in (2, 3)),
        *(f"samples-{n:04d}.html" for n in range(2, 7)),
    ]
    whole = [front.read_text(), *pages.values()]
    found = re.findall(r'<article class="card sample" id="([^"]+)"', "".join(whole))
    assert found == [f"clip-{n:06d}-0000" for n in range(130)]
    assert "".join(whole).count('class="card person"') == 100
    for html, base in [
        (whole[0], tmp_path),
        *((html, tmp_path / "a report.pages") for html in pages.values()),
    ]:
        assert Page(html).open == []
        for link in re.findall(r'href="([^"#]*)#?([^"]*)"', html):
            place = (base / unquote(link[0])).resolve() if link[0] else front
            assert place.is_file(), link
            assert not link[1] or f'id="{link[1]}"' in place.read_text(), link


def test_pictures_wait_until_they_are_looked_at(many: Path, tmp_path: Path) -> None:
    html = write_report(many, tmp_path / "report.html", quiet, num_shown=30).read_text()
    assert html.count("<img ") == html.count('loading="lazy" decoding="async"') > 0


def test_a_shorter_report_leaves_no_page_of_a_longer_one(many: Path, tmp_path: Path) -> None:
    write_report(many, tmp_path / "report.html", quiet, num_shown=100)
    write_report(many, tmp_path / "report.html", quiet, num_shown=30, num_people=10)
    assert [path.name for path in (tmp_path / "report.pages").iterdir()] == ["samples-0002.html"]


def test_every_shown_character_has_a_face(many: Path, tmp_path: Path) -> None:
    html = write_report(many, tmp_path / "report.html", quiet, num_shown=1).read_text()
    cards = re.findall(r'class="card person".*?(?=<div class="card person"|</section>)', html, re.DOTALL)
    assert len(cards) == 48
    assert all("<img" in card for card in cards)


def test_plots_are_pictures_of_what_is_there(shards: Path, many: Path, tmp_path: Path) -> None:
    curve = [{"threshold": at / 10, "false_accept": 1 - at / 10, "false_reject": None} for at in range(10)]
    names = {path.name for path in save_plots(shards, tmp_path / "one")}
    assert names == {"what_became.png", "left_out.png", "distributions.png", "people.png"}
    assert {path.name for path in save_plots(many, tmp_path / "two")} == {"distributions.png", "people.png"}
    figure = calibration_plot(curve, {"threshold": 0.4, "num_negative": 10, "num_positive": 0})
    figure.savefig(tmp_path / "one" / "calibration.png")
    for path in tmp_path.rglob("*.png"):
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.std() > 5
