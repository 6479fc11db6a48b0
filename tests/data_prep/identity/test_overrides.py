"""Overrides: what people decide holds in every run, is undone by removing its line, and typos are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_prep.identity.earlier import Earlier, settings
from data_prep.identity.identities import Linked, by_track, link
from data_prep.identity.overrides import Overrides, apply, read_overrides
from data_prep.records import Character, InputError
from tests.data_prep.identity.test_identities import LINK, corpus

CAST = (
    Character("ca", ("k1-t0", "k2-t0", "k3-t0")),
    Character("cb", ("k1-t1",)),
    Character("cc", ("k4-t0",)),
)
MUST_NOT = (("k1-t0", "k1-t1"),)


def read(tmp_path: Path, text: str) -> Overrides:
    path = tmp_path / "people.yaml"
    path.write_text(text, encoding="utf-8")
    return read_overrides(str(path))


def applied(tmp_path: Path, text: str) -> dict[str, tuple[str, ...]]:
    found = apply(CAST, read(tmp_path, text), MUST_NOT)
    return {character.id: character.track_ids for character in found.characters}


def test_no_file_changes_nothing() -> None:
    assert apply(CAST, read_overrides(""), MUST_NOT).characters == CAST


def test_everything_at_once(tmp_path: Path) -> None:
    """A split-off track is merged elsewhere, renamed by an old id, and another character is excluded."""
    text = """
        merge: [[cc, k3-t0]]
        split: [[k3-t0], [k2-t0]]
        rename: {cc: anna, k2-t0: bela-1}
        exclude: [cb]
    """
    found = apply(CAST, read(tmp_path, text), MUST_NOT)
    assert {c.id: c.track_ids for c in found.characters} == {
        "anna": ("k3-t0", "k4-t0"),
        "bela-1": ("k2-t0",),
        "ca": ("k1-t0",),
    }
    assert [c.id for c in found.characters] == sorted(c.id for c in found.characters)
    assert found.excluded == {"k1-t1": "cb"}


def test_one_track_can_be_excluded(tmp_path: Path) -> None:
    assert applied(tmp_path, "exclude: [k2-t0]")["ca"] == ("k1-t0", "k3-t0")


def test_the_first_id_of_a_merge_stays(tmp_path: Path) -> None:
    assert set(applied(tmp_path, "merge: [[cc, ca]]")) == {"cc", "cb"}
    assert set(applied(tmp_path, "merge: [[cc, ca], [ca, cc]]")) == {"cc", "cb"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge: [[ca, cb]]", "k1-t0 and k1-t1 were seen in one frame"),
        ("merge: [[ca, cx]]", "merge: no character or track 'cx' in this corpus"),
        ("merge: [[ca]]", r"came \[ca\]; give at least 2 ids"),
        ("merge: {ca: cb}", "give lists of ids"),
        ("split: [[k1-t9]]", "split: no track 'k1-t9' in this corpus; did you mean k1-t1"),
        ("split: [[k1-t0, k4-t0]]", "are of ca, cc; give tracks of one character"),
        ("split: [[k4-t0]]", "are all of cc; leave some"),
        ("rename: {ca: cb}", "another character has that id"),
        ("rename: {ca: ../x}", "came '../x'; a new id has 1 to 64 letters"),
        ("rename: {ca: 1e3x.}", "a new id has"),
        ("exclude: [12]", "came 12, which YAML reads as int; put it in quotes"),
        ("exclude: ca", "came 'ca'; give a list of ids"),
        ("exclud: [ca]", "came exclud; allowed are the keys merge, split, rename, exclude"),
        ("- ca", "came list; allowed are the keys"),
        ("merge: [", "is not YAML"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        applied(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"link\.overrides '.*nobody.yaml': No such file"):
        read_overrides(str(tmp_path / "nobody.yaml"))


def run_of(linked: Linked) -> Earlier:
    vectors = np.stack([track.embedding for track in linked.tracks])
    rows = {track.id: row for row, track in enumerate(linked.tracks)}
    return Earlier(by_track(linked.linked), rows, vectors, settings(LINK, "test"))


def test_overrides_hold_over_runs_and_added_clips_and_can_be_taken_back() -> None:
    clips, _ = corpus(2)
    plain = link(clips[4:], LINK, "test")
    together = {frozenset((plain.character_of()[a], plain.character_of()[b])) for a, b in plain.must_not}
    one, other = next(
        (a.id, b.id)
        for a in plain.characters
        for b in plain.characters
        if a.id < b.id and frozenset((a.id, b.id)) not in together
    )
    loner = next(c for c in plain.characters if c.id not in (one, other) and len(c.track_ids) > 2)
    wanted = Overrides(
        merge=((one, other),),
        split=((loner.track_ids[0],),),
        rename=((one, "anna"),),
        exclude=(loner.track_ids[1],),
    )
    first = link(clips[4:], LINK, "test", run_of(plain), wanted)
    both = {t for c in plain.characters if c.id in (one, other) for t in c.track_ids}
    assert {t for t, name in first.character_of().items() if name == "anna"} == both
    assert loner.track_ids[1] not in first.character_of()
    assert next(d for d in first.decisions if d.item == loner.track_ids[1]).rule == "excluded_character"
    second = link(clips[4:], LINK, "test", run_of(first), wanted)
    assert (second.characters, second.linked) == (first.characters, plain.linked)
    grown = link(clips, LINK, "test", run_of(second), wanted).character_of()
    assert {track: grown[track] for track in first.character_of()} == first.character_of()
    assert link(clips[4:], LINK, "test", run_of(second)).characters == plain.characters
