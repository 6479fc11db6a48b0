"""The families that identity is tried in, each a tiny model, and one table of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.config import CogVideoXConfig, FamilyConfig, ModelConfig, WanConfig
from tests.property_table import MAX_CAST, Subject, Table
from tests.small_cogvideox import TEXT_TOKENS, make_model
from tests.small_wan import make_wan

FAMILIES = ("tiny", "wan t2v", "cogvideox 1.0", "cogvideox 1.5")


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """Printed when all tests are done; ``pytest -s`` shows it."""
    made = Table(FAMILIES)
    yield made
    print(f"\n\n{made}")


@pytest.fixture(scope="session")
def family_config(
    model_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], FamilyConfig]:
    """How a family is configured, its model on disk where it has one."""
    root = tmp_path_factory.mktemp("families")

    def make(name: str) -> FamilyConfig:
        kind, _, version = name.partition(" ")
        if kind == "tiny":
            return model_config.family
        if kind == "wan":
            wan = WanConfig(
                pretrained=str(_once(root / "wan", lambda at: make_wan(at, "t2v"))), text_tokens=12
            )
            return FamilyConfig(name="wan", wan=wan)
        variant = {"1.0": "5b", "1.5": "1.5"}[version]
        folder = _once(root / variant, lambda at: make_model(at, variant))
        cogvideox = CogVideoXConfig(pretrained=str(folder), text_tokens=TEXT_TOKENS, frozen_dtype="fp32")
        return FamilyConfig(name="cogvideox", cogvideox=cogvideox)

    return make


def _once(folder: Path, make: Callable[[Path], Path]) -> Path:
    return folder if folder.is_dir() else make(folder)


@pytest.fixture(scope="session", params=FAMILIES)
def subject(
    request: pytest.FixtureRequest,
    family_config: Callable[[str], FamilyConfig],
    model_config: ModelConfig,
    videos: list[torch.Tensor],
    table: Table,
) -> Subject:
    """One family; its models are shared by tests that do not change them."""
    identity = replace(model_config.identity, max_cast=MAX_CAST)
    config = replace(model_config, family=family_config(request.param), identity=identity)
    return Subject(request.param, config, videos, table)
