"""From references in shards to bank entries: which faces stand for a character, and what may be done with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from data_prep.records import U8, Consent
from data_prep.shards import ReferenceNote, Sample
from pipeline.data.features import Recogniser
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.lock import locked_names
from pipeline.identity.network import IdentityNetwork
from pipeline.identity.tokens import fingerprint, tokens_of

NUM_REFERENCES = 5  # per entry: the most that a sample shows in training


@dataclass
class Gathered:
    """What the samples show of one character: reference faces by their origin, licences, consents."""

    faces: dict[tuple[str, str, int], tuple[ReferenceNote, U8]] = field(default_factory=dict)
    licences: set[str] = field(default_factory=set)
    consents: set[Consent] = field(default_factory=set)

    def chosen(self) -> list[tuple[ReferenceNote, U8]]:
        """At most NUM_REFERENCES faces, evenly spread over the yaw angles that there are."""
        faces = sorted(
            self.faces.values(), key=lambda face: (face[0].yaw_deg, face[0].clip_id, face[0].frame)
        )
        places = np.linspace(0, len(faces) - 1, min(NUM_REFERENCES, len(faces))).round().astype(int)
        return [faces[place] for place in places]

    def consent(self) -> Consent:
        """The strictest of all."""
        for strictest in ("refused", "unknown"):
            if strictest in self.consents:
                return strictest
        return "granted"


def gather_references(samples: Iterable[Sample]) -> dict[str, Gathered]:
    """Character id to what the samples show of it, each face once."""
    found: dict[str, Gathered] = {}
    for sample in samples:
        note = sample.note
        for member, origins, images in zip(note.cast, note.references, sample.references, strict=True):
            character = found.setdefault(member.character_id, Gathered())
            character.licences.add(note.licence)
            character.consents.add(note.consent)
            for origin, image in zip(origins, images, strict=True):
                character.faces[origin.clip_id, origin.track_id, origin.frame] = (origin, image)
    return found


def enrol(
    network: IdentityNetwork,
    found: Mapping[str, Gathered],
    recogniser: Recogniser,
    names: Mapping[str, str],
    earlier: IdentityBank | None,
    lock: Sequence[str] = (),
) -> IdentityBank:
    """A bank with an entry for every character found, and those of an earlier bank that were not.

    Args:
        network: turns references into tokens; also those of the earlier bank, whose tokens another network made.
        found: character id to its faces.
        recogniser: turns faces into embeddings.
        names: character id to the name in the bank, where it is not the id.
        earlier: bank of the run that this one started from, if any.
        lock: names in it whose entries stay as they are, with tokens that the network was taught to read.
    """
    encoder, made_by = network.encoder, fingerprint(network.encoder)
    kept = locked_names(earlier, lock)
    entries = {n: replace(earlier.entry(n), network=made_by, locked=True) for n in kept} if earlier else {}
    for character, gathered in sorted(found.items()):
        chosen = gathered.chosen()
        embeddings = torch.from_numpy(recogniser.embed(np.stack([image for _, image in chosen]))[0])
        picture, landmarks = _picture(chosen, recogniser)
        name = names.get(character, character)
        if name in kept:
            continue
        entries[name] = BankEntry(
            name=name,
            tokens=tokens_of(encoder, embeddings),
            references=embeddings,
            pack=recogniser.pack,
            consent=gathered.consent(),
            licence="; ".join(sorted(gathered.licences - {""})),
            provenance=tuple(f"{origin.clip_id}#{origin.frame}" for origin, _ in chosen),
            network=made_by,
            picture=picture,
            landmarks=landmarks,
        )
    for name, entry in (earlier.entries if earlier else {}).items():
        if name not in entries:
            entries[name] = replace(entry, tokens=tokens_of(encoder, entry.references), network=made_by)
    return IdentityBank(entries.values())


def _picture(
    chosen: Sequence[tuple[ReferenceNote, U8]], recogniser: Recogniser
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The most frontal of them, and its landmarks where the recogniser finds any."""
    _, crop = min(chosen, key=lambda face: abs(face[0].yaw_deg))
    landmarks = None
    if recogniser.landmarks is not None:
        landmarks = torch.from_numpy(recogniser.landmarks(crop[None])[0])
    return torch.from_numpy(crop.copy()), landmarks
