"""An episode for a bank: who of it plays whom, and each shot's prompt and cast.

Characters are the episode's ``characters``; places and objects are words of the prompt. Who is mapped by hand plays
that; without a map, somebody of the same name (whatever its case) plays himself, and the others, those of more
shots first, get the characters of the bank that are left, in its order. Whom nobody plays is drawn as described.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from data_prep.records import InputError
from pipeline.storyboard.episode import Episode, Shot


@dataclass(frozen=True)
class PlannedShot:
    """cast: names in the bank by slot; plays: who of the episode each of them is; continues: whether it begins with
    the last frame of the planned shot before; file: of its video, as EntityBench's evaluator wants it."""

    shot: Shot
    prompt: str
    cast: tuple[str, ...]
    plays: tuple[str, ...]
    continues: bool
    file: str


@dataclass(frozen=True)
class Plan:
    """mapping: character of the episode to that of the bank; unknown: those whom nobody plays."""

    episode: Episode
    mapping: Mapping[str, str]
    unknown: tuple[str, ...]
    shots: tuple[PlannedShot, ...]


def plan(
    episode: Episode, known: Sequence[str], mapping: Mapping[str, str], max_cast: int, can_continue: bool
) -> Plan:
    """The whole episode for a bank that holds ``known``.

    Args:
        mapping: by hand; empty: by the rule above.
        max_cast: characters that the model draws at once.
        can_continue: whether it takes a first frame.

    Raises:
        InputError: a map of somebody who is not in the episode or the bank, or twice to one, or a shot with more
            characters than the model draws.
    """
    chosen = _by_hand(episode, known, mapping) if mapping else _by_rule(episode, known)
    shots = []
    for before, shot in zip((None, *episode.shots), episode.shots, strict=False):
        plays = tuple(name for name in shot.characters if name in chosen)
        if len(plays) > max_cast:
            raise InputError(
                f"shot {shot.name}: {len(plays)} characters ({', '.join(plays)}), but identity.max_cast is "
                f"{max_cast}; leave some out with --cast-map"
            )
        goes_on = can_continue and before is not None and not shot.cut
        cast = tuple(chosen[name] for name in plays)
        file = f"{shot.scene}_{shot.number}.mp4"
        shots.append(PlannedShot(shot, prompt_of(episode, shot, plays), cast, plays, goes_on, file))
    unknown = tuple(name for name in episode.characters if name not in chosen)
    return Plan(episode, chosen, unknown, tuple(shots))


def prompt_of(episode: Episode, shot: Shot, plays: Sequence[str]) -> str:
    """A sentence for each of the cast by slot, as the captions of training begin, then the others, the place and
    what happens; names of the cast in it are followed by their token where they come first."""
    said = [f"<person-{slot}> is {_described(episode, name)}." for slot, name in enumerate(plays, 1)]
    said += [f"{_described(episode, name)}." for name in shot.characters if name not in plays]
    said += [f"{_described(episode, name)}." for name in (*shot.places, *shot.objects)]
    action = shot.action
    for slot, name in enumerate(plays, 1):
        action = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", f"{name} <person-{slot}>", action, count=1)
    return " ".join([*said, action])


def chosen_shots(planned: Plan, text: str) -> tuple[PlannedShot, ...]:
    """The shots that ``SCENE:SHOT,SCENE:FROM-TO,SCENE`` names, in the episode's order; empty: all.

    Raises InputError for one that is not in the episode.
    """
    names = [planned_shot.shot.name for planned_shot in planned.shots]
    wanted: set[str] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = set(_named(part, names))
        if not found:
            raise InputError(
                f"--shots: {part!r} names no shot; there are {names[0]} to {names[-1]}: give SCENE, SCENE:SHOT or "
                "SCENE:FROM-TO, commas between"
            )
        wanted |= found
    return tuple(one for one in planned.shots if not wanted or one.shot.name in wanted)


def _named(part: str, names: Collection[str]) -> list[str]:
    match = re.fullmatch(r"(\d+)(?::(\d+)(?:-(\d+))?)?", part)
    if match is None:
        return []
    scene, first, last = match.groups()
    low, high = (1, 10**9) if first is None else (int(first), int(last or first))
    return [name for name in names if name.split(":")[0] == scene and low <= int(name.split(":")[1]) <= high]


def _described(episode: Episode, name: str) -> str:
    text = " ".join(episode.descriptions.get(name, "").split()).rstrip(".")
    return f"{name}: {text}" if text else name


def _by_hand(episode: Episode, known: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    for name, target in mapping.items():
        if name not in episode.characters:
            raise InputError(
                f"--cast-map: {name!r} is no character of the episode; it has {', '.join(episode.characters)}"
            )
        if target not in known:
            raise InputError(f"--cast-map: {target!r} is not in the bank; it holds {', '.join(known)}")
    if len(set(mapping.values())) < len(mapping):
        raise InputError(
            f"--cast-map: {', '.join(mapping.values())}; two of the episode cannot be one of the bank"
        )
    return {name: mapping[name] for name in episode.characters if name in mapping}


def _by_rule(episode: Episode, known: Sequence[str]) -> dict[str, str]:
    by_name = {name.casefold(): name for name in known}
    same = {n: by_name[n.casefold()] for n in episode.characters if n.casefold() in by_name}
    left = [name for name in known if name not in same.values()]
    rest = dict(zip((n for n in episode.characters if n not in same), left, strict=False))
    chosen = {**same, **rest}
    return {name: chosen[name] for name in episode.characters if name in chosen}
