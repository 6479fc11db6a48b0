"""Locked characters: bit-equal tokens through real training steps, read in training and generation, and lasting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from data_prep.records import InputError
from pipeline.batch import Batch
from pipeline.data.features import Recogniser
from pipeline.identity.bank import BankEntry, IdentityBank
from pipeline.identity.enrol import enrol
from pipeline.identity.lock import locked_names, locked_tokens, with_locked
from pipeline.identity.tokens import fingerprint, remade, tokens_of
from pipeline.model import Model
from pipeline.objective import objective

NewModel = Callable[..., Model]
MakeBatch = Callable[..., Batch]


@pytest.fixture
def model(new_model: NewModel) -> Model:
    return new_model()


@pytest.fixture
def bank(model: Model) -> IdentityBank:
    def entry(name: str, seed: int) -> BankEntry:
        references = torch.randn(3, 32, generator=torch.Generator().manual_seed(seed))
        references = torch.nn.functional.normalize(references, dim=-1)
        encoder = model.identity.encoder
        return BankEntry(name, tokens_of(encoder, references), references, network=fingerprint(encoder))

    return IdentityBank([entry("Anna Bell", 1), entry("ben", 2), entry("carla", 3)])


def trained(model: Model, batch: Batch, locked: dict[str, torch.Tensor], steps: int = 3) -> Model:
    made = objective.build(model.config, model, seed=0, locked=locked)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        made(batch)["loss"].backward()
        optimizer.step()
    return model


def recogniser() -> Recogniser:
    return Recogniser("embedded", lambda crops: None, "", 32, 0.0)  # type: ignore[arg-type, return-value]


def test_training_moves_everybody_but_the_locked(
    model: Model, bank: IdentityBank, make_batch: MakeBatch
) -> None:
    locked = locked_tokens(bank, ["Anna Bell"], {"anna": "Anna Bell"})
    assert locked.keys() == {"anna"}
    trained(model, make_batch(), locked)
    after = enrol(model.identity, {}, recogniser(), {}, bank, ["Anna Bell"])
    anna, before = after.entry("Anna Bell"), bank.entry("Anna Bell")
    assert torch.equal(anna.tokens, before.tokens) and torch.equal(anna.references, before.references)
    assert anna.locked and anna.network == fingerprint(model.identity.encoder) != before.network
    for name in ("ben", "carla"):
        assert not torch.equal(after.entry(name).tokens, bank.entry(name).tokens)
        assert not after.entry(name).locked


def test_training_reads_the_locked_tokens(
    new_model: NewModel, bank: IdentityBank, make_batch: MakeBatch
) -> None:
    batch = make_batch()
    kept = {"anna": bank.entry("Anna Bell").tokens}
    other = replace(batch, references=batch.references.clone(), own_faces=batch.own_faces.clone())
    other.references[:, 0], other.own_faces[:, 0] = other.references[:, 1], other.own_faces[:, 1]

    def loss(batch: Batch, locked: dict[str, torch.Tensor]) -> float:
        model = new_model()
        return float(objective.build(model.config, model, seed=0, locked=locked)(batch)["loss"])

    assert loss(batch, kept) == loss(other, kept)  # her references are not read any more
    assert loss(batch, {}) != loss(other, {})
    assert loss(batch, kept) != loss(batch, {}) != loss(batch, {"anna": 2 * kept["anna"]})


def test_tokens_stand_in_for_the_encoders_slot_by_slot() -> None:
    tokens, own = torch.zeros(2, 3, 4, 5), torch.ones(4, 5)
    found = with_locked(tokens, (("a", "b"), ("c", "d", "b")), {"b": own, "x": 2 * own})
    assert found[0, 1].eq(1).all() and found[1, 2].eq(1).all() and found.sum() == 2 * 20
    assert with_locked(tokens, (("a",), ("c",)), {}) is tokens


def test_a_lock_lasts_until_all_tokens_are_made_anew(
    model: Model, bank: IdentityBank, make_batch: MakeBatch
) -> None:
    first = enrol(model.identity, {}, recogniser(), {}, bank, ["ben"])
    assert locked_names(first, ()) == ("ben",)
    trained(model, make_batch(), locked_tokens(first, (), {}))
    second = enrol(model.identity, {}, recogniser(), {}, first)
    assert second.entry("ben").locked
    assert torch.equal(second.entry("ben").tokens, bank.entry("ben").tokens)
    anew = remade(second, model.identity.encoder)
    assert not anew.entry("ben").locked
    assert not torch.equal(anew.entry("ben").tokens, bank.entry("ben").tokens)


def test_a_lock_is_kept_on_disk(bank: IdentityBank, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bank")
    IdentityBank([replace(bank.entry("ben"), locked=True), bank.entry("carla")]).save(folder)
    loaded = IdentityBank.load(folder)
    assert loaded.entry("ben").locked and not loaded.entry("carla").locked


def test_who_cannot_be_locked_is_named(bank: IdentityBank) -> None:
    with pytest.raises(InputError, match=r"'dora' is not in the base's bank; it holds Anna Bell, ben, carla"):
        locked_names(bank, ["ben", "dora"])
    with pytest.raises(InputError, match=r"model\.adapter\.lock=\[ben\]: .*base=EXPORT"):
        locked_names(None, ["ben"])
