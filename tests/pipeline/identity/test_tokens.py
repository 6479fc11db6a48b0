"""A fingerprint is of what makes tokens, and of nothing else; tokens made anew are those of an enrolment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from data_prep.records import InputError
from pipeline.config import IdentityConfig, ModelConfig
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.network import IdentityNetwork
from pipeline.identity.tokens import fingerprint, read_encoder, remade, tokens_of

CONFIG = IdentityConfig(embedding_dim=16, tokens_per_character=2, width=24, encoder_layers=1, num_heads=2)


def network(seed: int) -> IdentityNetwork:
    torch.manual_seed(seed)
    return IdentityNetwork(CONFIG, [torch.nn.Identity()], width=12)


def written(made: IdentityNetwork, folder: Path) -> Path:
    """What of an export says how tokens are made."""
    folder.mkdir()
    OmegaConf.save(OmegaConf.structured(replace(ModelConfig(), identity=CONFIG)), folder / "model.yaml")
    save_file(made.state_dict(), folder / "identity.safetensors")
    return folder


def test_the_same_encoder_has_the_same_fingerprint_whatever_stands_around_it() -> None:
    first = network(1)
    before = fingerprint(first.encoder)
    for parameter in (*first.slots.parameters(), *first.attentions.parameters()):
        parameter.data.add_(1)
    assert fingerprint(first.encoder) == before == fingerprint(network(1).encoder)
    assert fingerprint(network(2).encoder) != before
    first.encoder.queries.data[0, 0] += 1e-6
    assert fingerprint(first.encoder) != before


def test_an_encoder_is_read_without_the_rest_of_the_model(tmp_path: Path) -> None:
    made = network(1)
    read = read_encoder(written(made, tmp_path / "export"))
    references = torch.randn(3, 16)
    assert fingerprint(read) == fingerprint(made.encoder)
    assert torch.equal(tokens_of(read, references), tokens_of(made.encoder, references))
    with pytest.raises(InputError, match="no identity network here"):
        read_encoder(tmp_path)


def test_tokens_made_anew_are_those_of_the_other_network(tmp_path: Path) -> None:
    references = torch.randn(3, 16)
    bank = IdentityBank([BankEntry("anna", torch.zeros(5, 7), references, pack="embedded", network="other")])
    encoder = read_encoder(written(network(2), tmp_path / "export"))
    again = remade(bank, encoder).entry("anna")
    assert torch.equal(again.tokens, tokens_of(network(2).encoder, references))
    assert again.network == fingerprint(network(2).encoder)
    assert again.pack == "embedded" and torch.equal(again.references, references)


def test_references_of_another_width_are_refused(tmp_path: Path) -> None:
    bank = IdentityBank([BankEntry("anna", torch.zeros(2, 24), torch.randn(3, 192), pack="embedded_alt")])
    with pytest.raises(
        InputError, match=r"'anna' have 192 numbers each \(face pack embedded_alt\).*reads 16"
    ):
        remade(bank, network(1).encoder)
