"""Who plays in the proof, who is never seen with whom in training, and what is then asked for: plain data.

Everything that is held out is held out here, by construction: unordered pairs, trios, places and prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

from data_prep.records import Captions
from data_prep.selection.captions import identity_sentences, training_caption

PLACES = {2: ("left", "right"), 3: ("left", "middle", "right")}

TAKES = {
    "Martin": ("martin-1", "martin-2", "martin-3", "martin-4", "martin-5", "martin-6"),
    "Victor": ("victor-1", "victor-2", "victor-3", "victor-5", "victor-6", "victor-7"),
    "Oscar": ("oscar-1", "oscar-2", "oscar-3", "oscar-4"),
    "Bruno": ("bruno-1", "bruno-3"),
    "Nora": ("nora-1", "nora-3"),
    "Toby": ("toby-1", "toby-3"),
    "Elena": ("elena-1",),
}
ADDED = "Elena"  # whom a LoRA adds; nobody else's training shows her
PEOPLE = tuple(name for name in TAKES if name != ADDED)

Cast = tuple[str, ...]  # names from left to right

HELD_OUT_PAIRS = (("Martin", "Bruno"), ("Victor", "Toby"), ("Oscar", "Nora"))
HELD_OUT_TRIOS = (("Martin", "Victor", "Oscar"), ("Bruno", "Toby", "Nora"))
HELD_OUT_MIDDLE = ("Victor", "Bruno")  # in training at the sides alone
BESIDE_ADDED = ("Martin", "Oscar", "Toby")  # who is seen with the added one in training

BACKDROPS = {
    "office": "a plain blue office wall",
    "evening": "a plain wall in evening light",
    "wall": "a brick wall in warm light",
}
NOT_WITH_TRIOS = "wall"  # three people before it are asked for, and never seen
COUNTS = {2: "Two", 3: "Three"}


@dataclass(frozen=True)
class Asked:
    """One scene to be generated. cast: from left to right; slots: places in ``cast`` by slot, so that the k-th
    sentence of the prompt, and the k-th character given, is ``cast[slots[k]]``."""

    group: str
    cast: Cast
    backdrop: str
    slots: tuple[int, ...]

    @property
    def names(self) -> Cast:
        """The cast in the order of its slots."""
        return tuple(self.cast[place] for place in self.slots)

    @property
    def prompt(self) -> str:
        """What training captions say of such a scene; it names nobody."""
        centres = [float(place) for place in self.slots]
        captions = captions_of(len(self.cast), self.backdrop)
        return training_caption(identity_sentences(centres, captions), captions)


def captions_of(num_people: int, backdrop: str) -> Captions:
    """What a manifest says of a scene: nobody's name, nobody's look, nobody's place."""
    return Captions(brief=f"{COUNTS[num_people]} people before {BACKDROPS[backdrop]}.")


def pairs() -> list[Cast]:
    """The pairs that training shows, from left to right, in both orders."""
    shown = [pair for pair in combinations(PEOPLE, 2) if not _is_held_out(pair)]
    return [order for pair in shown for order in permutations(pair)]


def trios() -> list[Cast]:
    """The trios that training shows, from left to right, in every order but those that hold a middle out."""
    held_out = {frozenset(trio) for trio in HELD_OUT_TRIOS}
    trios = [trio for trio in combinations(PEOPLE, 3) if not _is_held_out(trio)]
    orders = [order for trio in trios if frozenset(trio) not in held_out for order in permutations(trio)]
    return [order for order in orders if order[1] not in HELD_OUT_MIDDLE]


def added_pairs() -> list[Cast]:
    """The pairs that show the added character in the LoRA's training."""
    return [order for other in BESIDE_ADDED for order in permutations((ADDED, other))]


def shown_casts() -> list[tuple[Cast, str]]:
    """Every cast from left to right with every backdrop that training shows it before."""
    two = list(product([*pairs(), *added_pairs()], BACKDROPS))
    return two + [(trio, place) for trio, place in product(trios(), BACKDROPS) if place != NOT_WITH_TRIOS]


def asked() -> list[Asked]:
    """What every row is asked for: ``pairs`` and ``trios`` that it has not seen together, and ``seen`` pairs."""
    two = [order for pair in HELD_OUT_PAIRS for order in permutations(pair)]
    made = [_asked("pairs", cast, place) for cast, place in product(two, ("office", "wall"))]
    three = [(a, b, c) for a, b, c in HELD_OUT_TRIOS] + [(c, a, b) for a, b, c in HELD_OUT_TRIOS]
    made += [_asked("trios", cast, place) for cast, place in product(three, ("evening", NOT_WITH_TRIOS))]
    return made + [_asked("seen", cast, "evening") for cast in pairs()[::4]]


def asked_of_added() -> list[Asked]:
    """The added character beside those that its training has not shown it with."""
    others = [name for name in PEOPLE if name not in BESIDE_ADDED]
    two = [order for other in others for order in permutations((ADDED, other))]
    return [_asked("added", cast, place) for cast, place in product(two, ("office", "wall"))]


def _asked(group: str, cast: Cast, backdrop: str) -> Asked:
    """Slots run from the right to the left before a wall, so that a slot does not always mean the same place."""
    order: Sequence[int] = range(len(cast))
    return Asked(group, cast, backdrop, tuple(reversed(order) if backdrop == "wall" else order))


def _is_held_out(cast: Cast) -> bool:
    return any(set(pair) <= set(cast) for pair in HELD_OUT_PAIRS)
