"""Reads a shard folder for the report: notes of many samples, pictures of some, faces of the people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from data_prep.records import U8, Progress
from data_prep.report.fragments import character_card, sample_card
from data_prep.report.pager import Pager
from data_prep.report.pictures import contact_sheet, jpeg_uri
from data_prep.shards import Sample, SampleNote, ShardSet
from data_prep.shards.sample import read_note, reference_pictures

MOST_READ = 2000  # samples that the distributions are drawn from, evenly spaced over a larger set
MOST_PEOPLE = 2400  # characters with a card, those of most samples
FACES_PER_CHARACTER = 6
LINKS_PER_CHARACTER = 4
CLIPS_PER_CHARACTER = 2  # that are read for faces; each shows up to five


@dataclass
class Gathered:
    """What is kept of the samples that were read: every note, faces by character, and who is shown where: character
    to the places and keys of the samples that have a card."""

    notes: list[SampleNote] = field(default_factory=list)
    faces: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    shown: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))


def spaced(count: int, most: int) -> list[int]:
    """At most so many numbers below ``count``, evenly spaced, the first and the last among them."""
    return (
        sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist())) if count else []
    )


def gather(
    shards: ShardSet,
    colours: Mapping[str, str],
    shown: Sequence[int],
    pages: tuple[Pager, Pager],
    on_progress: Progress,
) -> Gathered:
    """Read what the report needs; the samples of the rows ``shown`` become cards, in their order. ``pages``: of
    samples, to fill, and of the people whose faces will be wanted."""
    cards, people = pages
    gathered = Gathered()
    places = {at: place for place, at in enumerate(shown)}
    first = _first_seen(shards, list(colours)[: people.total])
    read = sorted({*spaced(len(shards), MOST_READ), *first, *shown})
    for done, at in enumerate(read, 1):
        row = shards.rows[at]
        faces: Sequence[U8] = ()
        if at in places:
            sample = shards.read(at)
            note, faces = sample.note, sample.references
            cards.add(_card(sample, colours))
            for name in row.cast:
                gathered.shown[name].append((places[at], row.key))
        elif at in first:
            ((_, members),) = shards.members([at])
            note = read_note(members["json"])
            faces = reference_pictures(members["references.png"], note)
        else:
            (note,) = shards.notes([at])
        gathered.notes.append(note)
        _keep_faces(note, faces, gathered.faces)
        on_progress("report", done, len(read))
    cards.close()
    return gathered


def _card(sample: Sample, colours: Mapping[str, str]) -> str:
    slots = [colours[member.character_id] for member in sample.note.cast]
    pictures = [[jpeg_uri(face) for face in faces] for faces in sample.references]
    return sample_card(sample, slots, contact_sheet(sample, slots), pictures)


def _first_seen(shards: ShardSet, names: Sequence[str]) -> set[int]:
    """Of every character of these, one sample of each of the first clips that show them."""
    clips: dict[str, set[str]] = {name: set() for name in names}
    found = set()
    for at, row in enumerate(shards.rows):
        for name in row.cast:
            if name in clips and row.clip_id not in clips[name] and len(clips[name]) < CLIPS_PER_CHARACTER:
                clips[name].add(row.clip_id)
                found.add(at)
    return found


def _keep_faces(note: SampleNote, pictures: Sequence[U8], faces: dict[str, dict[str, str]]) -> None:
    """The first references of a character, one per clip as long as there are clips."""
    for references, shown in zip(note.references, pictures, strict=False):
        for reference, picture in zip(references, shown, strict=True):
            known = faces[reference.character_id]
            if reference.clip_id not in known and len(known) < FACES_PER_CHARACTER:
                known[reference.clip_id] = jpeg_uri(picture)


def show_people(
    shards: ShardSet,
    gathered: Gathered,
    colours: Mapping[str, str],
    num_tracks: Mapping[str, int],
    pages: tuple[Pager, Pager],
) -> None:
    """Cards of the characters, those of most samples first. ``pages``: of samples, and of people, to fill."""
    samples, people = pages
    counts: dict[str, tuple[Counter[str], set[str]]] = defaultdict(lambda: (Counter(), set()))
    for row in shards.rows:
        for name in row.cast:
            clips, sources = counts[name]
            clips[row.clip_id] += 1
            sources.add(row.source_id)
    for at, name in enumerate(list(colours)[: people.total]):
        clips, sources = counts[name]
        numbers = ((clips.total(), "sample"), (len(clips), "clip"), (len(sources), "source"))
        about = " · ".join(_counted(*some) for some in (*numbers, (num_tracks.get(name, 0), "track")))
        links = [
            (samples.address(place, key, within=at >= people.size), key)
            for place, key in gathered.shown[name][:LINKS_PER_CHARACTER]
        ]
        people.add(character_card((name, colours[name]), about, list(gathered.faces[name].values()), links))
    people.close()


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"
