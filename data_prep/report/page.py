"""Puts the report together: its front page, which stands alone, and the pages of further samples and people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from data_prep import ledger
from data_prep.atomic import write_atomic
from data_prep.packing.catalogue import known_characters
from data_prep.records import Decision, Progress
from data_prep.report.charts import Histogram, svg
from data_prep.report.fragments import lost_items, lost_table, number_tiles
from data_prep.report.gather import MOST_PEOPLE, gather, show_people, spaced
from data_prep.report.pager import Pager, styled
from data_prep.report.pictures import colour
from data_prep.selection.reference_figures import dropped_shares, figures
from data_prep.shards import SampleNote, ShardSet

SAMPLES_PER_PAGE, PEOPLE_PER_PAGE = 24, 48  # 2 MB of pictures each


def write_report(
    folder: Path, output: Path, on_progress: Progress, num_shown: int = 96, num_people: int = MOST_PEOPLE
) -> Path:
    """Write the page of a finished shard folder to ``output`` and return its path.

    Args:
        folder: what ``castbank prepare`` wrote.
        output: the HTML file; replaced whole or not at all.
        num_shown: samples shown with pictures, evenly spaced over the set; those after the first page's are on
            pages of their own, in a folder beside ``output``.
        num_people: characters with a card, those of most samples; likewise.

    Raises:
        InputError: the folder is absent, unfinished or damaged.
    """
    shards = ShardSet.open(folder, "all")
    decisions = ledger.read(folder / ledger.LEDGER) if (folder / ledger.LEDGER).is_file() else []
    title = f"Shards of {folder.resolve().name}"
    template = files("data_prep.report").joinpath("page.html").read_text(encoding="utf-8")
    colours, more = _colours(shards), styled(template, title)
    shown = spaced(len(shards), num_shown)
    samples = Pager("samples", output, len(shown), SAMPLES_PER_PAGE, more)
    people = Pager("characters", output, min(len(colours), num_people), PEOPLE_PER_PAGE, more)
    gathered = gather(shards, colours, shown, (samples, people), on_progress)
    show_people(shards, gathered, colours, _track_counts(folder), (samples, people))
    limits = shards.manifest.facts.get("limits", {})
    html = Template(template).substitute(
        title=escape(title),
        lead=_lead(shards),
        numbers=number_tiles(_headline(shards)),
        calibration=escape(_calibration(shards)),
        people_links=people.links(1),
        people=people.first,
        samples_note=_samples_note(len(shown), len(shards), figures(gathered.notes).sentence()),
        samples_links=samples.links(1),
        samples=samples.first,
        charts="".join(svg(chart) for chart in distributions(gathered.notes, limits)),
        lost_note=_lost_note(decisions),
        lost=lost_table(decisions) + lost_items(decisions),
        footer=escape(f"inputs {shards.manifest.inputs_sha256} · index {shards.manifest.index_sha256}"),
    )
    write_atomic(output, html.encode())
    return output


def _track_counts(folder: Path) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for character_id in known_characters(folder).values():
        counts[character_id] += 1
    return counts


def _colours(shards: ShardSet) -> dict[str, str]:
    """Identity colour by character; those in most samples first, so that they differ."""
    counts: dict[str, int] = defaultdict(int)
    for row in shards.rows:
        for character_id in row.cast:
            counts[character_id] += 1
    ranked = sorted(counts, key=lambda character_id: (-counts[character_id], character_id))
    return {character_id: colour(at) for at, character_id in enumerate(ranked)}


def _lead(shards: ShardSet) -> str:
    facts = shards.manifest.facts
    size_mb = sum(shard.num_bytes for shard in shards.manifest.shards) / 1e6
    return escape(
        f"{len(shards)} training samples in {len(shards.manifest.shards)} shards ({size_mb:.1f} MB), made from "
        f"{facts.get('num_clips_kept', '?')} of {facts.get('num_clips', '?')} clips. Every person has one "
        "identity, a mask on every frame, and reference faces from outside the frames being trained on."
    )


def _headline(shards: ShardSet) -> list[tuple[str, str]]:
    facts = shards.manifest.facts
    multi = sum(len(row.cast) > 1 for row in shards.rows)
    apart = sum(row.split == "validation" for row in shards.rows)
    names = (
        ("num_clips_kept", "clips kept"),
        ("num_tracks", "face tracks"),
        ("num_characters", "characters"),
    )
    return [
        *((str(facts.get(name, "?")), label) for name, label in names),
        (str(len(shards)), "samples"),
        (str(multi), "with two people or more"),
        *(((str(apart), "for validation"),) if apart else ()),
        (str(facts.get("num_quarantined", "?")), "clips quarantined"),
    ]


def _calibration(shards: ShardSet) -> str:
    seen = shards.manifest.facts.get("calibration") or {}
    if not seen:
        return ""
    wrong = (
        ("false accepts", seen["false_accept"], seen["num_negative"], "co-visible pairs"),
        ("false rejects", seen["false_reject"], seen["num_positive"], "same-track pairs"),
    )
    rates = [
        f"{rate:.2%} {name} over {count} {pairs}" if rate is not None else f"no {pairs} to measure {name}"
        for name, rate, count, pairs in wrong
    ]
    between = seen.get("corpus_threshold", seen["threshold"])
    return (
        f"Face pack {seen['pack']}, same person from cosine {seen['threshold']:g} within a source and {between:g} "
        f"between sources: {', '.join(rates)}. calibration.json has the rates of every threshold."
    )


def _samples_note(shown: int, total: int, references: str) -> str:
    some = f"{shown} of {total}, evenly spaced. " if shown < total else ""
    return (
        f"{some}Numbers are cast slots; each slot's references stand beside it with where they come from, their "
        "cosine to the person's faces in the sample, the distance in time, and yaw. "
        f"{references[:1].upper()}{references[1:]}."
    )


def distributions(notes: Sequence[SampleNote], limits: Mapping[str, float]) -> list[Histogram]:
    """What is drawn of samples and their references."""
    references = [reference for note in notes for slot in note.references for reference in slot]
    boxes = [box for note in notes for slot in note.boxes_px for box in slot if box is not None]
    gaps = [reference.time_gap_s for reference in references if reference.time_gap_s is not None]
    sides = [min(x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
    tallest = max([note.height_px for note in notes], default=96)
    similarities = [reference.similarity for reference in references]
    turns = [abs(reference.yaw_difference_deg) for reference in references]
    casts = [len(note.cast) for note in notes]
    most = max([4, *casts])

    def marks(*names: str) -> tuple[float, ...]:
        return tuple(float(limits[name]) for name in names if name in limits)

    bounds = marks("min_similarity", "max_similarity")
    whole = tuple(float(count) for count in range(1, most + 1))
    return [
        Histogram("Similarity of references", similarities, 0.0, 1.0, 40, marks=bounds),
        Histogram("Yaw of references", [reference.yaw_deg for reference in references], -60, 60, 40, "°"),
        Histogram("Yaw, reference to sample", turns, 0, 60, 40, "°"),
        Histogram("Time to the reference", gaps, 0, max([60.0, *gaps]), 40, " s"),
        Histogram("Face size in the sample", sides, 0, tallest, 40, " px", marks("min_face_px")),
        Histogram("People per sample", casts, 0.5, most + 0.5, most, ticks=whole),
    ]


def _lost_note(decisions: Sequence[Decision]) -> str:
    lost = sum(decision.fate != "kept" for decision in decisions)
    num_windows = sum(decision.kind in ("window", "sample") for decision in decisions)
    shares = dropped_shares(ledger.count_by_rule(decisions), num_windows)
    windows = ", ".join(f"{share:.0%} {rule}" for rule, share in shares.items())
    return (
        f"{lost} of {len(decisions)} items; every decision is in ledger.parquet. Of {num_windows} windows "
        f"were dropped: {windows or 'none'}."
        if decisions
        else "No ledger."
    )
