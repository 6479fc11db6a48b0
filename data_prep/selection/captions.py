"""Training captions: one identity sentence per cast slot, then the clip's structured description.

The identity sentence binds a slot's token to a person that a viewer could point at, by the order of the faces
from left to right; where the clip's own captions say who is there, their words are added. The description is
ordered by what a text encoder with few tokens should not lose, the longest text last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from data_prep.records import Captions

_PLACES = {2: ("left", "right"), 3: ("left", "middle", "right")}
_SIDES = re.compile(r"\b(left|right|middle|centre|center)\b", re.IGNORECASE)
_CLAUSES = re.compile(r"(?<=[.;!?])\s+|,?\s+while\s+|,\s+and\s+(?=(?:on|to|at|in)\s+the\s)", re.IGNORECASE)
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def slot_token(slot: int) -> str:
    """The token of a cast slot, counted from 1: the k-th of the label map is ``<person-k>``."""
    return f"<person-{slot}>"


def identity_sentences(centres_px: Sequence[float], captions: Captions) -> tuple[str, ...]:
    """One sentence per slot. centres_px: mean horizontal position of each slot's face in the window."""
    left_to_right = sorted(range(len(centres_px)), key=lambda slot: (centres_px[slot], slot))
    return tuple(
        _sentence(slot + 1, left_to_right.index(slot), len(centres_px), captions)
        for slot in range(len(centres_px))
    )


def told_sentence(sentence: str, words: str) -> str:
    """An identity sentence with other words about the person; the place stays."""
    where = sentence.partition(": ")[0].rstrip(".")
    return f"{where}: {words}."


def training_caption(sentences: Sequence[str], captions: Captions) -> str:
    """The text a model is conditioned on."""
    fields = (
        captions.brief or captions.summarized,
        captions.shot_type,
        captions.camera_movement,
        captions.background,
        captions.lighting,
        captions.style,
        captions.atmosphere,
        captions.detailed,
    )
    parts = [text for text in (_closed(field) for field in fields) if text]
    return " ".join([*sentences, *dict.fromkeys(parts)])


def _sentence(slot: int, rank: int, count: int, captions: Captions) -> str:
    if count == 1:
        return f"{slot_token(slot)} is the person in the picture."
    if count not in _PLACES:
        name = _ORDINALS[rank] if rank < len(_ORDINALS) else f"{rank + 1}th"
        return f"{slot_token(slot)} is the {name} person from the left."
    place = _PLACES[count][rank]
    where = "in the middle" if place == "middle" else f"on the {place}"
    words = _clause_at(place, captions)
    return f"{slot_token(slot)} is the person {where}" + (f": {words}." if words else ".")


def _clause_at(place: str, captions: Captions) -> str:
    """The first clause of the captions that speaks of this place and of no other, without its full stop."""
    for text in (captions.brief, captions.summarized, captions.detailed):
        for clause in _CLAUSES.split(text):
            named = {side.lower().replace("centre", "middle") for side in _SIDES.findall(clause)}
            if {"middle" if side == "center" else side for side in named} == {place}:
                return clause.strip().rstrip(".;,!?")
    return ""


def _closed(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?" else text + "."
