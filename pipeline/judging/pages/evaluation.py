"""The page of one evaluation: what holds for all videos, who is mistaken for whom, then every video, worst first.

It opens at once however many videos there are: rows are drawn as one scrolls, strips of frames are beside the page
but for the first ones, which are inside so that the page can be mailed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.records import Json
from pipeline.judging.pages.content import clip_row, column, figure_names, filled, short

NUM_INSIDE = 60  # strips in the page itself, of the rows that are shown first; some 2 MB


def evaluation_page(content: Json, strips: Mapping[str, Path], folder: str, title: str) -> str:
    """The page's HTML.

    content: an evaluation.json; strips: JPEG files by a video's key; folder: that the page finds them in, by a
    relative name; title: its heading.
    """
    videos = content["videos"]
    names = figure_names(row["figures"] for row in videos)
    order = worst_first(videos, names)
    inside = {videos[at]["key"] for at in order[:NUM_INSIDE]}
    clips = []
    for at in order:
        key = videos[at]["key"]
        clips.append(clip_row(videos[at], names, _picture(strips.get(key), folder, inside=key in inside)))
    data = {
        "columns": [column(name) for name in names],
        "means": [_interval(content["figures"].get(name)) for name in names],
        "clips": clips,
        "matrices": mean_matrices(videos),
        "whole": [
            {**column(name), "value": short(value)} for name, value in content.get("whole", {}).items()
        ],
        "against": content.get("against", []),
        "episode": content.get("episode"),
    }
    return filled("evaluation.html", title, data)


def worst_first(videos: Sequence[Json], names: Sequence[str]) -> list[int]:
    """The videos' places, worst by the first column on top; those without a value (nobody was seen) before all."""
    if not names:
        return list(range(len(videos)))
    sign = -1.0 if column(names[0])["better"] == "lower" else 1.0

    def rank(at: int) -> float:
        value = videos[at]["figures"].get(names[0])
        return float("-inf") if value is None else sign * float(value)

    return sorted(range(len(videos)), key=rank)


def mean_matrices(videos: Sequence[Json]) -> list[Json]:
    """By recogniser the mean similarity of everybody (rows: whose place; columns: whose references) over the videos
    in which both are of the cast and one is seen; null where that never is."""
    packs: dict[str, Json] = {}
    for row in videos:
        for one in row["scores"]:
            found = packs.setdefault(
                one["pack"], {"pack": one["pack"], "same": one["same_person"], "sums": {}}
            )
            for i, line in enumerate(one["similarity"]):
                for j, value in enumerate(line):
                    if value is not None:
                        pair = (row["cast"][i], row["cast"][j])
                        total, count = found["sums"].get(pair, (0.0, 0))
                        found["sums"][pair] = (total + value, count + 1)
    return [_matrix(found) for found in packs.values()]


def _matrix(found: Json) -> Json:
    sums: dict[tuple[str, str], tuple[float, int]] = found["sums"]
    cast = sorted({name for pair in sums for name in pair})
    cells: list[list[Any]] = [
        [short(sums[a, b][0] / sums[a, b][1]) if (a, b) in sums else None for b in cast] for a in cast
    ]
    return {"pack": found["pack"], "same": found["same"], "cast": cast, "matrix": cells}


def _picture(strip: Path | None, folder: str, *, inside: bool) -> str:
    """Where the page finds a strip; empty without one."""
    if strip is None or not strip.is_file():
        return ""
    if inside:
        return "data:image/jpeg;base64," + base64.b64encode(strip.read_bytes()).decode()
    return f"{folder}/{strip.name}"


def _interval(row: Json | None) -> list[float | None] | None:
    return None if row is None else [short(row["mean"]), short(row["low"]), short(row["high"]), row["num"]]
