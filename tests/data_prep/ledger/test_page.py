"""The page of a ledger: all that a person needs of it, nothing that runs or is fetched, small at any size."""

from __future__ import annotations

import html.parser
import random
from pathlib import Path

from data_prep import ledger
from data_prep.ledger.page import MOST_OF_A_RULE, MOST_QUARANTINED, page, write_both
from data_prep.records import Decision

KEPT = [Decision(f"clip{at}", "clip", "kept", "analyse") for at in range(7)]
SMALL = [
    Decision(f"w{at}", "window", "dropped", "select", "too_few_references", str(at), "at least 3")
    for at in range(3)
]
BROKEN = Decision(
    *("clip9", "clip", "quarantined", "analyse", "failed", "3", "3 attempts", "WorkerCrashedError", 3),
    detail="Fatal Python error: <Aborted> & more",
    replay="castbank prepare a.csv --output out --replay clip9",
)


class Reader(html.parser.HTMLParser):
    """Text by table row, and every tag that is opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.is_in_row = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
            self.is_in_row = True

    def handle_data(self, data: str) -> None:
        if self.rows and self.is_in_row:
            self.rows[-1].append(data)

    def handle_endtag(self, tag: str) -> None:
        self.is_in_row &= tag != "tr"


def test_every_fate_rule_and_command_is_there() -> None:
    text = page([*KEPT, *SMALL, BROKEN])
    read = Reader(text)
    assert ["clip", "7", "0", "1"] in read.rows
    assert ["window", "0", "3", "0"] in read.rows
    assert ["3", "100.0%", "window", "select", "too_few_references", "1", "at least 3"] in read.rows
    assert "What failed: WorkerCrashedError 1." in text
    assert "castbank prepare a.csv --output out --replay clip9" in text
    assert "Fatal Python error: &lt;Aborted&gt; &amp; more" in text
    assert "3 attempts" in text
    assert not read.tags & {"script", "link", "img", "iframe"}
    assert "http" not in text


def test_the_order_of_decisions_does_not_matter() -> None:
    decisions = [*KEPT, *SMALL, BROKEN]
    assert page(decisions) == page(random.Random(0).sample(decisions, len(decisions)))


def test_a_long_ledger_gives_a_page_that_opens() -> None:
    windows = [
        Decision(f"w{at:06d}", "window", "dropped", "select", "too_small", f"{at} px", "8 px")
        for at in range(50_000)
    ]
    crashes = [Decision(f"c{at}", "clip", "quarantined", "analyse", "failed", "3") for at in range(5000)]
    text = page([*windows, *crashes])
    assert len(text) < 300_000
    assert text.count("w00") == MOST_OF_A_RULE
    assert f"and {5000 - MOST_QUARANTINED} more" in text
    assert ["50000", "100.0%", "window", "select", "too_small", "24999.5", "8 px"] in Reader(text).rows


def test_an_empty_ledger_has_a_page_too(tmp_path: Path) -> None:
    write_both(tmp_path / "new", [])
    assert ledger.read(tmp_path / "new" / "ledger.parquet") == []
    assert "0 decisions" in (tmp_path / "new" / "ledger.html").read_text()
