"""What people decided about characters, as a small YAML file that every run applies anew.

    merge:                                        # each list is one person; the first one's id stays
      - [c1f0a2b3, c9d8e7f6]
    split:                                        # each list of tracks is a person of its own
      - [clip-07-t001, clip-09-t000]
    rename:
      c1f0a2b3: anna
    exclude: [c44d0e21, clip-03-t002]             # a whole character, or one track

An id is a character's, as linking found it, or a track's, which stands for the character that it belongs to (in
``exclude`` for itself). Everything is resolved on what linking found, in the order split, merge, rename, exclude,
so that a line does the same in every run, and a line that is removed is undone. Nothing is learned from it: linking
does not see the file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.identity.naming import fresh_name
from data_prep.records import Character, InputError, Json

SECTIONS = ("merge", "split", "rename", "exclude")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Overrides:
    """See the module; ``where`` names the file in messages."""

    merge: tuple[tuple[str, ...], ...] = ()
    split: tuple[tuple[str, ...], ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    exclude: tuple[str, ...] = ()
    where: str = "link.overrides"

    def as_json(self) -> Json:
        """What of it decides about results."""
        return {name: getattr(self, name) for name in SECTIONS}


@dataclass(frozen=True)
class Applied:
    """characters: ordered by id; excluded: by track id, whom it belonged to."""

    characters: tuple[Character, ...]
    excluded: Mapping[str, str] = field(default_factory=dict)


def read_overrides(path: str) -> Overrides:
    """The file's content; nothing for an empty path.

    Raises:
        InputError: there is no such file, or it is not of the form that the module's text shows.
    """
    import yaml

    if not path:
        return Overrides()
    where = f"link.overrides {path!r}"
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}; give a YAML file that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{where} is not YAML: {error}") from error
    if not isinstance(content, dict) or set(content) - set(SECTIONS):
        came = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{where}: came {came}; allowed are the keys {', '.join(SECTIONS)}")
    return Overrides(
        merge=_lists(content.get("merge"), f"{where}: merge", fewest=2),
        split=_lists(content.get("split"), f"{where}: split", fewest=1),
        rename=_names(content.get("rename"), f"{where}: rename"),
        exclude=_list(content.get("exclude") or [], f"{where}: exclude"),
        where=where,
    )


def apply(linked: Sequence[Character], overrides: Overrides, must_not: Sequence[tuple[str, str]]) -> Applied:
    """The characters that people want out of those that linking found.

    Raises:
        InputError: an id that nobody has, a split over two characters or of a whole one, a name that somebody else
            has, or one person made of two faces that were seen in one frame.
    """
    cast = _Cast(linked, overrides.where)
    for tracks in overrides.split:
        cast.split(tracks)
    for ids in overrides.merge:
        cast.merge(ids, must_not)
    for one, name in overrides.rename:
        cast.rename(one, name)
    excluded: dict[str, str] = {}
    for one in overrides.exclude:
        excluded |= cast.exclude(one)
    left = [Character(name, tuple(sorted(tracks))) for name, tracks in cast.tracks.items() if tracks]
    return Applied(tuple(sorted(left, key=lambda character: character.id)), excluded)


class _Cast:
    """Characters while they change. tracks: by present id; _now: by every id there ever was, the present one."""

    def __init__(self, linked: Sequence[Character], where: str) -> None:
        self.tracks = {character.id: set(character.track_ids) for character in linked}
        self._now = {name: name for name in self.tracks}
        self._owner = {track: name for name, tracks in self.tracks.items() for track in tracks}
        self._where = where

    def split(self, tracks: Sequence[str]) -> None:
        for track in tracks:
            if track not in self._owner:
                raise self._unknown("split", track, list(self._owner), "track")
        owners = sorted({self._owner[track] for track in tracks})
        if len(owners) > 1:
            raise InputError(
                f"{self._where}: split {_shown(tracks)} are of {', '.join(owners)}; give tracks of one character"
            )
        if self.tracks[owners[0]] == set(tracks):
            raise InputError(
                f"{self._where}: split {_shown(tracks)} are all of {owners[0]}; leave some to it"
            )
        name = fresh_name(min(tracks), set(self._now))
        self.tracks[owners[0]] -= set(tracks)
        self.tracks[name] = set(tracks)
        self._now[name] = name
        self._owner |= dict.fromkeys(tracks, name)

    def merge(self, ids: Sequence[str], must_not: Sequence[tuple[str, str]]) -> None:
        names = list(dict.fromkeys(self._find("merge", one) for one in ids))
        together = set().union(*(self.tracks[name] for name in names))
        for one, other in must_not:
            if one in together and other in together:
                raise InputError(
                    f"{self._where}: merge {_shown(ids)}: {one} and {other} were seen in one frame and cannot be "
                    "one person; exclude the one that is a reflection or a picture"
                )
        self.tracks[names[0]] = together
        self._owner |= dict.fromkeys(together, names[0])
        for name in names[1:]:
            self._moved(name, names[0])

    def rename(self, one: str, name: str) -> None:
        found = self._find("rename", one)
        if name in self._now and self._now[name] != found:
            raise InputError(
                f"{self._where}: rename {one} to {name!r}: another character has that id; take a new one"
            )
        if name != found:
            self.tracks[name] = self.tracks[found]
            self._owner |= dict.fromkeys(self.tracks[name], name)
            self._moved(found, name)

    def exclude(self, one: str) -> dict[str, str]:
        """The tracks that are gone, with their character."""
        found = self._find("exclude", one)
        gone = {one} if one in self._owner and one not in self._now else set(self.tracks[found])
        self.tracks[found] -= gone
        return dict.fromkeys(gone, found)

    def _moved(self, name: str, to: str) -> None:
        del self.tracks[name]
        self._now[to] = to
        self._now = {known: to if now == name else now for known, now in self._now.items()}

    def _find(self, section: str, one: str) -> str:
        """The present id of a character, by any id it had or by a track of it."""
        found = self._now.get(one) or self._owner.get(one)
        if found is None:
            raise self._unknown(section, one, [*self._now, *self._owner], "character or track")
        return found

    def _unknown(self, section: str, one: str, known: list[str], what: str) -> InputError:
        near = difflib.get_close_matches(one, known, 1)
        hint = f"did you mean {near[0]}?" if near else "characters.json lists them"
        return InputError(f"{self._where}: {section}: no {what} {one!r} in this corpus; {hint}")


def _shown(ids: Sequence[str]) -> str:
    return "[" + ", ".join(ids) + "]"


def _lists(value: Any, where: str, fewest: int) -> tuple[tuple[str, ...], ...]:
    lists = tuple(_list(entry, where) for entry in _sequence(value or [], where, "lists of ids"))
    for entry in lists:
        if len(entry) < fewest:
            raise InputError(f"{where}: came {_shown(entry)}; give at least {fewest} ids in each list")
    return lists


def _list(value: Any, where: str) -> tuple[str, ...]:
    return tuple(_text(entry, where) for entry in _sequence(value, where, "a list of ids"))


def _names(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value or {}, dict):
        raise InputError(f"{where}: came {value!r}; give 'id: new id' lines")
    for name in (value or {}).values():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(
                f"{where}: came {name!r}; a new id has 1 to 64 letters, digits, - and _, in quotes if need be"
            )
    return tuple((_text(one, where), name) for one, name in (value or {}).items())


def _sequence(value: Any, where: str, wanted: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: came {value!r}; give {wanted}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"{where}: came {value!r}, which YAML reads as {type(value).__name__}; put it in quotes"
        )
    return value
