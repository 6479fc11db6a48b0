"""What a captioner is asked about one sample, and what its answer must be.

The picture is the sample's own frame in which most of its cast is seen, with a numbered box around each face: the
number is the slot, so that what is said of number 2 is bound to the second face of the label map and to no other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from data_prep.records import U8
from data_prep.selection.captions import slot_token
from data_prep.shards import SampleNote

SHORT_SIDE_PX = 448
"""Of the picture; smaller windows are enlarged to it. Models cut pictures into tiles of 448 or 512 pixels."""

MOST_CHARS = 600
"""Of one clause: 25 words are asked for, 600 characters are no clause any more."""

_TOKEN = re.compile(r"<person-(\d+)>")


@dataclass(frozen=True)
class Question:
    """key: the sample's; num_people: of its cast; known: what the manifest says of the clip; picture: a JPEG."""

    key: str
    num_people: int
    known: str
    picture: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """people: per slot a clause on looks and doing; scene: what happens, people named by their slots' tokens."""

    people: tuple[str, ...]
    scene: str


@dataclass(frozen=True)
class Reply:
    """answers: one per question, None where it was no answer; problem: of the last such; cost_usd: of it all."""

    answers: tuple[Answer | None, ...]
    cost_usd: float
    problem: str = ""


class Captioner(Protocol):
    """Answers a few questions at once."""

    def most_usd(self, questions: Sequence[Question]) -> float:
        """What asking them can cost at most, as far as it is known before."""
        ...

    def __call__(self, questions: Sequence[Question]) -> Reply:
        """Raises InputError where the endpoint refuses, or never answers."""
        ...


class UselessError(Exception):
    """What came is no answer; the message says why."""


def checked(found: Any, num_people: int) -> Answer:
    """An answer as it may be used. Raises UselessError for any other."""
    people = found.get("people") if isinstance(found, Mapping) else None
    if not isinstance(people, Mapping):
        raise UselessError(f"no object with people and scene: {str(found)[:80]!r}")
    clauses = tuple(_clause(people.get(str(slot)), f"people.{slot}") for slot in range(1, num_people + 1))
    scene = _clause(found.get("scene"), "scene")
    strangers = {int(slot) for slot in _TOKEN.findall(scene)} - set(range(1, num_people + 1))
    if strangers:
        raise UselessError(f"scene names {slot_token(min(strangers))}, the cast has {num_people}")
    return Answer(clauses, scene)


def _clause(text: object, name: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise UselessError(f"{name} is no text: {str(text)[:80]!r}")
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(plain) > MOST_CHARS:
        raise UselessError(f"{name} has {len(plain)} characters, at most {MOST_CHARS} are a clause")
    return plain.rstrip(" .;,")


def picture(video: U8, note: SampleNote) -> bytes:
    """A JPEG of the frame with most of the cast, boxes and slot numbers drawn. video: u8[T,H,W,3] RGB."""
    at = _best_frame(note)
    frame = video[at]
    scale = max(1.0, SHORT_SIDE_PX / min(frame.shape[:2]))
    size = (round(frame.shape[1] * scale), round(frame.shape[0] * scale))
    image = np.ascontiguousarray(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)[..., ::-1])
    for slot, boxes in enumerate(note.boxes_px, 1):
        box = boxes[at]
        if box is not None:
            left, top, right, bottom = (round(value * scale) for value in box)
            cv2.rectangle(image, (left, top), (right, bottom), (255, 255, 255), 3)
            cv2.rectangle(image, (left, top), (right, bottom), (0, 0, 0), 1)
            cv2.rectangle(image, (left, top - 26), (left + 24, top), (0, 0, 0), -1)
            at_px = (left + 5, top - 6)
            cv2.putText(image, str(slot), at_px, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert done
    return data.tobytes()


def _best_frame(note: SampleNote) -> int:
    """Where most of the cast is seen; of equals, the nearest to the middle."""
    count = len(note.frames)
    seen = [sum(boxes[at] is not None for boxes in note.boxes_px) for at in range(count)]
    return max(range(count), key=lambda at: (seen[at], -abs(at - count // 2)))
