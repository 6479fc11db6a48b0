"""How one clip is read: refused, canonicalised or as it is, and by which decoder; what was done is written down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data_prep.config import DecodeConfig, Reader, Treatment
from data_prep.decode import READERS, Chunk, decoder_versions, fitting_reader
from data_prep.video.canonical import canonical
from data_prep.video.probe import Probe, Trait, UnusableError, probe

MAX_OFF_S = 1e-3  # between a frame's time and that of its packet


@dataclass(frozen=True)
class Reading:
    """What is read. own: of the clip's file; found: of the file that is decoded, which is the canonical one where
    there is one, under the fingerprint of the own; decoder: name and version, after what canonicalised it."""

    own: Probe
    found: Probe
    reader: Reader
    decoder: str
    config: DecodeConfig

    @property
    def medium(self) -> str:
        """One line about the clip's own file."""
        return str(self.own)

    def chunks(self) -> Iterator[Chunk]:
        """All frames in order; raises UnusableError where they are not those that the packets promised."""
        read = 0
        decode = self.config
        for chunk in READERS[self.reader](self.found.path, decode.long_side_px, decode.max_chunk_bytes):
            promised_s = self.found.times_s[read : read + len(chunk.times_s)]
            read += len(chunk.times_s)
            if len(promised_s) < len(chunk.times_s):
                break
            off_s = float(np.abs(chunk.times_s - promised_s).max())
            if off_s > MAX_OFF_S:
                raise UnusableError("unreadable", f"frame times off by {off_s:.3f} s", f"{MAX_OFF_S:g} s")
            yield chunk
            del chunk  # or its frames would live while the next ones are read
        if read != self.found.num_frames:
            raise UnusableError("unreadable", f"{read} frames decoded", f"the file's {self.found.num_frames}")


@contextmanager
def reading(path: Path, config: DecodeConfig) -> Iterator[Reading]:
    """Probe a clip's file and make it ready to be read.

    Raises:
        UnusableError: the file is damaged, or has a trait that the configuration refuses.
    """
    found = probe(path)
    treatments = {trait: treatment(trait, config) for trait in found.traits}
    refused = next((trait for trait, how in treatments.items() if how == "refuse"), None)
    if refused:
        raise UnusableError(refused, found.traits[refused], f"none, by decode.unusual.{refused}", str(found))
    causes = [trait for trait, how in treatments.items() if how == "canonicalise"]
    if not causes:
        yield _reading(found, found, config, "")
        return
    with canonical(found, config.long_side_px) as made:
        usual = replace(probe(made), fingerprint=found.fingerprint)
        yield _reading(
            found, usual, config, f"{decoder_versions()['pyav']}, canonical ({', '.join(causes)}), "
        )


def treatment(trait: Trait, config: DecodeConfig) -> Treatment:
    """What the configuration does with a trait."""
    how: Treatment = getattr(config.unusual, trait)
    return how


def _reading(own: Probe, found: Probe, config: DecodeConfig, before: str) -> Reading:
    reader = config.reader
    if reader == "decord":
        reader = fitting_reader(found, config.long_side_px, config.max_chunk_bytes)
    return Reading(own, found, reader, before + decoder_versions()[reader], config)
