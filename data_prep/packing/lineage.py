"""What each sample was made from, so that a later run knows which shards still hold and which must be written anew.

``lineage.jsonl`` has a line per sample, in the order of the index: its clip and that clip's state, its tracks, and
of each reference the clip, the state, the track and the crop. When clips are added, better references may turn up
for samples that are packed already. They are not exchanged: a shard stays, to the byte, as long as every sample in
it would be selected again with the same frames, cast, words and rules, and all that it was made from is still there
and still the same people. ``castbank prepare --repack`` chooses anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.atomic import write_atomic
from data_prep.config import PrepareConfig
from data_prep.records import InputError, Json, digest
from data_prep.running.fingerprints import RECIPE, result_knobs
from data_prep.running.work import ClipWork
from data_prep.selection.samples import Plan
from data_prep.shards import IndexRow, Manifest, ShardFile, ShardSet, Split
from data_prep.shards.sample import SCHEMA

LINEAGE = "lineage.jsonl"


@dataclass(frozen=True)
class Origin:
    """Where one reference was cut out. state: of the clip (see ``states``); crop: its place in the track."""

    clip_id: str
    state: str
    track_id: str
    crop: int


@dataclass(frozen=True)
class Descent:
    """One line. state: of the clip; tracks: track id and the slot it is painted as; references: per slot; basis:
    hash of all that decides the sample but its references."""

    key: str
    shard: str
    clip_id: str
    state: str
    tracks: tuple[tuple[str, int], ...]
    references: tuple[tuple[Origin, ...], ...]
    basis: str


@dataclass(frozen=True)
class Generation:
    """The shards that stand in an output: manifest, index rows and lineage, both by the sample's key; as_now: made
    by the rules that are in force, so that shards may stay; sides: split by source, where its share is the one that
    is wanted."""

    manifest: Manifest
    rows: Mapping[str, IndexRow]
    lines: Mapping[str, Descent]
    as_now: bool
    sides: Mapping[str, Split]


def packing(config: PrepareConfig) -> Json:
    """For the manifest: a hash of the rules that samples are made by and put into shards, and the split's share."""
    rules = {"recipe": RECIPE, "schema": SCHEMA, "knobs": result_knobs(config)}
    return {"rules": digest(rules)[:16], "validation": config.pack.validation}


def states(works: Iterable[ClipWork]) -> dict[str, str]:
    """By clip id: the key of its analysis, and a hash of what the manifest says of its origin and rights."""
    found = {}
    for work in works:
        clip = work.clip
        found[clip.id] = f"{work.key}-{digest([clip.source_id, clip.licence, clip.consent])[:8]}"
    return found


def descent(plan: Plan, shard: str, now: Mapping[str, str]) -> Descent:
    """The line of a sample that is packed into ``shard``; ``now``: the clips' states."""
    clip_id, note = plan.note.clip_id, asdict(plan.note)
    del note["references"]
    made = {"note": note, "caption": plan.caption, "slots": plan.slots, "clip": now[clip_id]}
    return Descent(
        key=plan.note.key,
        shard=shard,
        clip_id=clip_id,
        state=now[clip_id],
        tracks=plan.slots,
        references=tuple(
            tuple(Origin(p.clip_id, now[p.clip_id], p.track_id, p.crop) for p in slot) for slot in plan.crops
        ),
        basis=digest(made),
    )


def standing(output: Path, config: PrepareConfig) -> Generation | None:
    """What stands in the output; None where there is nothing, or it is damaged."""
    try:
        shards = ShardSet.open(output, "all")
        lines = [_line(text) for text in (output / LINEAGE).read_text(encoding="utf-8").splitlines()]
    except (InputError, FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    rows, by_key = {row.key: row for row in shards.rows}, {line.key: line for line in lines}
    if rows.keys() != by_key.keys():
        return None
    wanted, made = packing(config), shards.manifest.facts.get("packing") or {}
    same_share = made.get("validation") == wanted["validation"]
    sides = {row.source_id: row.split for row in shards.rows} if same_share else {}
    return Generation(shards.manifest, rows, by_key, made == wanted, sides)


def held(
    output: Path,
    before: Generation,
    wanted: Mapping[str, tuple[Descent, Split]],
    now: Mapping[str, str],
    character_of: Mapping[str, str],
) -> list[ShardFile]:
    """The shards that stay as they are: whole on disk, and every sample of them still wanted and still true.

    ``wanted``: what would be packed now, by key; ``now``: the clips' states; ``character_of``: by track id.
    """

    def stands(file: ShardFile) -> bool:
        path = output / file.name
        return path.is_file() and path.stat().st_size == file.num_bytes

    broken = {
        line.shard
        for key, line in before.lines.items()
        if key not in wanted
        or (line.basis, before.rows[key].split) != (wanted[key][0].basis, wanted[key][1])
        or not _sources_stand(line, before.rows[key], now, character_of)
    }
    return [file for file in before.manifest.shards if file.name not in broken and stands(file)]


def _sources_stand(
    line: Descent, row: IndexRow, now: Mapping[str, str], character_of: Mapping[str, str]
) -> bool:
    """Whether every reference's clip is as it was, and its track still the character of the slot."""
    return all(
        now.get(origin.clip_id) == origin.state and character_of.get(origin.track_id) == character
        for character, slot in zip(row.cast, line.references, strict=True)
        for origin in slot
    )


def write(folder: Path, lines: Sequence[Descent]) -> None:
    """Write ``lineage.jsonl``; same lines, same bytes."""
    text = "".join(json.dumps(asdict(line), sort_keys=True) + "\n" for line in lines)
    write_atomic(folder / LINEAGE, text.encode())


def _line(text: str) -> Descent:
    data = json.loads(text)
    tracks = tuple((track, slot) for track, slot in data.pop("tracks"))
    references = tuple(tuple(Origin(**origin) for origin in slot) for slot in data.pop("references"))
    return Descent(**data, tracks=tracks, references=references)
