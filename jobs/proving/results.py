"""What each row gave: drawn and judged once, kept as JSON, read back; the goals, and the time that is left."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from data_prep.atomic import write_atomic
from jobs.progress import ProgressBar
from jobs.proving.casting import PEOPLE, Asked, asked, asked_of_added
from jobs.proving.config import ProofConfig
from jobs.proving.drawing import PACKS, Order, carry_out
from jobs.proving.rows import FULL, NONE, Row
from jobs.proving.scoring import Figures, SlotVerdict, VideoVerdict, confusion, figures
from jobs.proving.training import Places

GROUPS = {
    "pairs": "pairs never seen together",
    "trios": "threes never seen together, people in new places, before a wall that threes never had",
    "seen": "pairs that training showed",
    "added": "the added character with people it was never seen with",
}
RIGHT, SWAPS = 0.9, 0.02  # the goal


@dataclass(frozen=True)
class RowResult:
    """A row and every video of it. spent_s: seconds of its training and of its drawing, here."""

    row: Row
    videos: tuple[VideoVerdict, ...]
    spent_s: tuple[float, float]

    def groups(self) -> list[str]:
        return [group for group in GROUPS if any(video.group == group for video in self.videos)]

    def figures(self, group: str, pack: str, everybody: Sequence[str]) -> Figures:
        return figures([video for video in self.videos if video.group == group], pack, everybody)


def scenes_of(row: Row) -> list[Asked]:
    """What a row is asked for."""
    return [*asked(), *asked_of_added()] if row.added else asked()


def draw_row(row: Row, config: ProofConfig, places: Places, names: Mapping[str, str]) -> RowResult:
    """Draw and judge all videos of a row, on several processes, and keep what was found."""
    began, scenes = time.monotonic(), scenes_of(row)
    orders = [_order(number, scene, row, config, places, names) for number, scene in enumerate(scenes)]
    orders[0].keep.parent.mkdir(parents=True, exist_ok=True)
    videos: list[VideoVerdict] = []
    with ProgressBar() as progress, _pool(config) as pool:
        for done, found in enumerate(pool.map(carry_out, orders), 1):
            videos += found
            progress(f"draw {row.name}", done, len(orders))
    result = RowResult(row, tuple(videos), (training_s(row, places), time.monotonic() - began))
    content = {"key": key_of(row, config), "spent_s": result.spent_s, "videos": [asdict(v) for v in videos]}
    write_atomic(_path(row, places), json.dumps(content).encode())
    return result


def _pool(config: ProofConfig) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(config.num_processes, mp_context=get_context("spawn"))


def _order(
    number: int, scene: Asked, row: Row, config: ProofConfig, places: Places, names: Mapping[str, str]
) -> Order:
    return Order(
        run=places.run(row.name if row.trains else row.of),
        shards=places.shards,
        names=tuple(sorted(names.items(), key=lambda item: item[1])),
        asked=scene,
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        keys=(f"steps={config.sampler_steps}", *row.draw),
        told=row.told,
        layout=row.layout,
        keep=places.output / "pictures" / row.name / f"{number:02d}.png",
    )


def read_row(row: Row, config: ProofConfig, places: Places) -> RowResult | None:
    """What a row gave when it was drawn with the same keys; None where it was not."""
    path = _path(row, places)
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["key"] != key_of(row, config):
        return None
    videos = tuple(_video(video) for video in content["videos"])
    return RowResult(row, videos, (content["spent_s"][0], content["spent_s"][1]))


def key_of(row: Row, config: ProofConfig) -> str:
    """All that a row's videos depend on; the code is not among it."""
    keys = asdict(config)
    del keys["rows"], keys["num_processes"]
    return json.dumps([asdict(row), keys, [asdict(scene) for scene in scenes_of(row)]], sort_keys=True)


def _path(row: Row, places: Places) -> Path:
    return places.output / "rows" / f"{row.name}.json"


def _video(found: Mapping[str, Any]) -> VideoVerdict:
    slots = {
        pack: tuple(SlotVerdict(**{**slot, "similarity": tuple(slot["similarity"])}) for slot in some)
        for pack, some in found["slots"].items()
    }
    return VideoVerdict(found["group"], tuple(found["cast"]), found["backdrop"], found["seed"], slots)


def training_s(row: Row, places: Places) -> float:
    """Wall seconds of a row's own training, by its job's attempts; 0 where it has none."""
    from cluster.job_folder import JobFolder

    if not row.trains:
        return 0.0
    attempts = JobFolder(places.output / "jobs" / row.name).attempts()
    return sum(attempt.end_s - attempt.start_s for attempt in attempts if attempt.end_s is not None)


def minutes_left(rows: Sequence[Row], config: ProofConfig, places: Places) -> float | None:
    """For rows that are not done, by the mean of those that are."""
    known = [found for row in config.chosen() if (found := read_row(row, config, places))]
    trained = [found.spent_s[0] for found in known if found.row.trains and found.spent_s[0]]
    if not known or not trained:
        return None
    todo = [row for row in rows if read_row(row, config, places) is None]
    each, drawing = sum(trained) / len(trained), sum(found.spent_s[1] for found in known) / len(known)
    return sum(each * row.trains + drawing for row in todo) / 60


def as_json(config: ProofConfig, results: Sequence[RowResult], everybody: Sequence[str]) -> str:
    """All figures of all rows; the first pack decides."""
    rows = {
        found.row.name: {
            **asdict(found.row),
            "spent_s": found.spent_s,
            "figures": {
                pack: {group: asdict(found.figures(group, pack, everybody)) for group in found.groups()}
                for pack in PACKS
            },
            "confusion": {
                pack: {
                    group: confusion([v for v in found.videos if v.group == group], pack, everybody).tolist()
                    for group in found.groups()
                }
                for pack in PACKS
            },
        }
        for found in results
    }
    content = {
        "config": asdict(config),
        "deciding": PACKS[0],
        "everybody": list(everybody),
        "goals": list(goals(results, everybody)),
        "rows": rows,
    }
    return json.dumps(content, indent=1)


def goals(results: Sequence[RowResult], everybody: Sequence[str]) -> Iterator[str]:
    """Each goal, whether it was met, and the number; for the rows that there are."""
    by_name = {found.row.name: found for found in results}
    if FULL in by_name:
        found = by_name[FULL].figures("pairs", PACKS[0], everybody)
        least = min(found.margin_of, key=lambda name: found.margin_of[name])
        margin = found.margin_of[least]
        yield _goal(
            found.right.mean >= RIGHT, f"right face in the right place {found.right.mean:.1%}", ">= 90 %"
        )
        yield _goal(found.swap.mean <= SWAPS, f"swaps {found.swap.mean:.1%}", "<= 2 %")
        yield _goal(margin > 0, f"least bleed margin {margin:+.3f} ({least})", "> 0 for everybody")
    if NONE in by_name:
        found = by_name[NONE].figures("pairs", PACKS[0], everybody)
        chance = 1 / len(PEOPLE)
        met = found.right.low <= chance <= found.right.high
        bounds = f"{found.right.mean:.1%} ({found.right.low:.1%} to {found.right.high:.1%})"
        yield _goal(met, f"no identity: right {bounds}", f"chance, {chance:.1%}")


def _goal(met: bool, came: str, wanted: str) -> str:
    return f"{'met' if met else 'MISSED'}: {came}; wanted {wanted}"


def summary(results: Sequence[RowResult], everybody: Sequence[str]) -> Iterator[str]:
    """One line per row: its figures on pairs never seen together."""
    for found in results:
        one = found.figures("pairs", PACKS[0], everybody)
        yield (
            f"  {found.row.name:16} right {one.right.mean:6.1%}  swaps {one.swap.mean:6.1%}  "
            f"margin {one.margin.mean:+.3f}  coverage {one.coverage.mean:6.1%}"
        )
