"""The trainings of the proof: their configurations, all checked before the first begins, and their bases."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from data_prep.atomic import write_atomic
from jobs import config as configs
from jobs.proving.casting import ADDED, BESIDE_ADDED, PEOPLE
from jobs.proving.config import ProofConfig
from jobs.proving.rows import Row
from pipeline.config import TrainConfig

CONFIGS = Path(__file__).parent.parent / "configs"
BASE = "base"


@dataclass(frozen=True)
class Places:
    """Where everything of one proof lies."""

    output: Path

    @property
    def footage(self) -> Path:
        return self.output / "footage"

    @property
    def shards(self) -> Path:
        return self.output / "shards"

    def run(self, name: str) -> Path:
        return self.output / "runs" / name

    def config(self, name: str) -> Path:
        return self.output / "configs" / f"{name}.yaml"

    def grafted(self, name: str) -> Path:
        """The base with the identity network of a row."""
        return self.output / "bases" / name


def base_config(proof: ProofConfig, places: Places, names: Mapping[str, str]) -> TrainConfig:
    """Of the base: everything but identity, for longer."""
    keys = ["model.noise.cast_drop=1.0", "model.adapter.train_identity=false"]
    return _config(proof, places, BASE, names, [f"num_steps={proof.base_steps}", *keys])


def row_config(row: Row, proof: ProofConfig, places: Places, names: Mapping[str, str]) -> TrainConfig:
    """Of a row's own training."""
    steps = proof.added_steps if row.added else proof.steps
    base = places.run(row.of) / "export" if row.of else places.grafted(row.name)
    return _config(proof, places, row.name, names, [f"num_steps={steps}", f"base={base}", *row.train])


def _config(
    proof: ProofConfig, places: Places, name: str, names: Mapping[str, str], keys: list[str]
) -> TrainConfig:
    """Only the added row sees the added character; a LoRA is trained on the clips that show it."""
    added = [character for character, who in names.items() if who == ADDED]
    lora = any(key == "model.adapter.kind=lora" for key in keys)
    seen = (ADDED, *BESIDE_ADDED) if lora else PEOPLE
    places_of = [f"run={places.run(name)}", f"data.shards={places.shards}", f"seed={proof.seed}"]
    chosen = [f"data.{'include' if lora else 'exclude'}_characters=[{', '.join(added)}]"]
    called = [f"names.{character}={who}" for character, who in names.items() if who in seen]
    ranks = [f"engine.num_processes={proof.num_processes}"]
    given = [*places_of, *chosen, *called, *ranks, *keys]
    return configs.load(TrainConfig, CONFIGS / "train_proof.yaml", given)


def write(config: TrainConfig, path: Path) -> None:
    """As ``castbank train --config`` takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, configs.to_yaml(config).encode())


def graft(base: Path, config: TrainConfig, folder: Path) -> None:
    """Write an export of the base's transformer and codec with a new identity network as a configuration wants it,
    and an empty bank; nothing where it is there. Identity adds zero until trained, so all rows begin alike."""
    import torch

    from pipeline import model as models
    from pipeline.families import family_type
    from pipeline.identity.bank import IdentityBank

    if folder.is_dir():
        return
    family = family_type(config.model.family.name).load(config.model.family, base)
    model = models.Model(config.model, family, config.seed)
    model.base_changed = True
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with torch.no_grad():
        models.save(model, aside)
    IdentityBank([]).save(aside / "bank")
    aside.rename(folder)
