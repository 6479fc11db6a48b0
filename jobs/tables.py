"""A table for a terminal: aligned columns, the last only as wide as it is."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of as many cells each, the first the head, as text that ends in a newline."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)] + [0]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )
