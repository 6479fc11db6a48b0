"""Cards, so many a page: the first page's belong to the front page, every other page is a file of its own.

A browser reads what is looked at and nothing else, so that a report of 10,000 samples opens as fast as one of 24.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import quote

from data_prep.atomic import write_atomic

NEAR = 3  # pages on either side that have a link of their own


@dataclass
class Pager:
    """Takes one card after the other. kind: first word of the files' names; front: the front page, beside whose
    ``pages_folder`` the files lie; total: of the cards that will come; size: of a page; page: kind, navigation and
    cards to a whole page."""

    kind: str
    front: Path
    total: int
    size: int
    page: Callable[[str, str, str], str]
    first: str = ""
    _cards: list[str] = field(default_factory=list)
    _number: int = 1

    @property
    def num_pages(self) -> int:
        """At least one, which may be empty."""
        return max(1, -(-self.total // self.size))

    def add(self, card: str) -> None:
        """Keep a card, or write a page that it fills."""
        self._cards.append(card)
        if len(self._cards) == self.size:
            self._turn()

    def close(self) -> None:
        """Write the last page, and remove pages that an earlier, longer report left."""
        if self._cards:
            self._turn()
        for old in pages_folder(self.front).glob(f"{self.kind}-*.html"):
            if int(old.stem.rpartition("-")[2]) > self.num_pages:
                old.unlink()

    def address(self, place: int, key: str, *, within: bool) -> str:
        """Where the card of a place is, from the front page or from ``within`` the folder of pages."""
        return f"{self._file(place // self.size + 1, within=within)}#{key}"

    def links(self, number: int) -> str:
        """Links to the pages around one, the first and the last."""
        if self.num_pages == 1:
            return ""
        near = {1, self.num_pages, *range(number - NEAR, number + NEAR + 1)}
        shown, before = [], 0
        for at in sorted(page for page in near if 0 < page <= self.num_pages):
            gap = "<i>…</i>" if at > before + 1 else ""
            here = f'<b aria-current="page">{at}</b>'
            there = f'<a href="{self._file(at, within=number > 1)}">{at}</a>'
            shown.append(gap + (here if at == number else there))
            before = at
        return f'<nav class="pages">{escape(self.kind)} {" ".join(shown)}</nav>'

    def _file(self, number: int, *, within: bool) -> str:
        if number == 1:
            return f"../{quote(self.front.name)}" if within else ""
        name = f"{self.kind}-{number:04d}.html"
        return name if within else f"{quote(pages_folder(self.front).name)}/{name}"

    def _turn(self) -> None:
        cards = "".join(self._cards)
        if self._number == 1:
            self.first = cards
        else:
            path = pages_folder(self.front) / self._file(self._number, within=True)
            write_atomic(path, self.page(self.kind, self.links(self._number), cards).encode())
        self._cards, self._number = [], self._number + 1


def pages_folder(front: Path) -> Path:
    """Where the pages after the first lie, beside the front page."""
    return front.with_name(f"{front.stem}.pages")


def styled(template: str, title: str) -> Callable[[str, str, str], str]:
    """A page in the look of the front page's template."""
    style = re.search(r"<style>.*?</style>", template, re.DOTALL)
    assert style is not None
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n{style[0]}\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
    )

    def page(kind: str, links: str, cards: str) -> str:
        return (
            f'{head}{links}\n<section class="{kind}">{cards}</section>\n{links}\n</main>\n</body>\n</html>\n'
        )

    return page
