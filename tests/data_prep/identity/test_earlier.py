"""What one generation leaves for the next, through the files it is kept in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from data_prep.config import LinkConfig
from data_prep.identity.earlier import read_earlier, settings
from data_prep.identity.identities import Linked, by_track, link
from data_prep.identity.overrides import Overrides
from data_prep.packing import catalogue
from tests.data_prep.identity.test_identities import LINK, corpus, make_clip


def written(folder: Path, overrides: Overrides | None = None) -> Linked:
    clips, _ = corpus(4)
    linked = link(clips, LINK, "test", overrides=overrides)
    catalogue.write(folder, linked, [], [])
    return linked


def vectors(linked: Linked) -> dict[str, np.ndarray]:
    return {track.id: track.embedding for track in linked.tracks}


def test_characters_come_back_as_linking_found_them(tmp_path: Path) -> None:
    plain = link(corpus(4)[0], LINK, "test")
    renamed = Overrides(
        rename=((plain.linked[0].id, "anna"),), exclude=(plain.linked[1].id, plain.linked[2].track_ids[0])
    )
    linked = written(tmp_path, renamed)
    earlier = read_earlier(tmp_path)
    assert earlier.ids == by_track(plain.linked)
    assert earlier.kept(vectors(linked), LINK, "test") == by_track(plain.linked)
    assert earlier.voted(vectors(linked), 0.4) == by_track(plain.linked)
    shown = catalogue.known_characters(tmp_path)
    assert shown == linked.character_of()
    assert "anna" in shown.values()
    assert not set(plain.linked[1].track_ids) & set(shown)


def test_without_embeddings_ids_are_kept_by_vote(tmp_path: Path) -> None:
    plain = link(corpus(4)[0], LINK, "test")
    linked = written(
        tmp_path, Overrides(rename=((plain.linked[0].id, "anna"),), exclude=(plain.linked[1].id,))
    )
    shutil.rmtree(tmp_path / "faces")
    earlier = read_earlier(tmp_path)
    assert earlier.ids == by_track(plain.linked)
    assert earlier.kept(vectors(linked), LINK, "test") == {}
    assert earlier.voted(vectors(linked), 0.4) == by_track(plain.linked)


def test_nothing_is_known_of_an_empty_folder(tmp_path: Path) -> None:
    assert read_earlier(tmp_path).ids == {}


def test_any_setting_that_decides_who_is_whom_counts() -> None:
    names = ("threshold", "max_false_accept", "max_false_reject", "max_chance", "min_norm")
    found = {settings(LINK, "test"), settings(LINK, "other")}
    found |= {settings(LinkConfig(**{**vars(LINK), name: 0.3}), "test") for name in names}
    assert len(found) == 2 + len(names)
    assert settings(LinkConfig(**{**vars(LINK), "overrides": "x"}), "test") == settings(LINK, "test")


def test_a_corpus_without_tracks_is_written_and_read(tmp_path: Path) -> None:
    linked = link([make_clip("a", "s", [])], LINK, "test")
    catalogue.write(tmp_path, linked, [], [])
    assert read_earlier(tmp_path).ids == {}
    assert json.loads((tmp_path / "characters.json").read_text()) == []
