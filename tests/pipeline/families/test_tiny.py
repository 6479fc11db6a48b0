"""The tiny family's linear autoencoder against numpy, its word vectors, and its way to disk and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.records import InputError
from pipeline import adapters
from pipeline.families.contract import Given
from pipeline.families.tiny import PatchPCA, TinyFamily, embed_words, place_of
from pipeline.model import Model

P = 4


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    """Smooth random clips, so that few components hold most of the variance."""
    generator = torch.Generator().manual_seed(3)
    coarse = [torch.rand(2, 3, 5, 6, generator=generator) * 2 - 1 for _ in range(4)]
    return [torch.nn.functional.interpolate(c, size=(16, 24), mode="bilinear") for c in coarse]


def patches(clips: list[torch.Tensor]) -> np.ndarray:
    rows = []
    for clip in clips:
        for frame in clip:
            for y in range(0, 16, P):
                rows += [frame[:, y : y + P, x : x + P].reshape(-1).numpy() for x in range(0, 24, P)]
    return np.stack(rows).astype(np.float64)


def test_fit_finds_the_principal_components(clips: list[torch.Tensor]) -> None:
    codec = PatchPCA.fit(clips, P, 6)
    data = patches(clips)
    centred = data - data.mean(0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(codec.mean.numpy(), data.mean(0), atol=1e-6)
    deviation = singular[:6] / np.sqrt(len(data))
    np.testing.assert_allclose(codec.scale.numpy(), np.sqrt(deviation * deviation.mean()), rtol=1e-4)
    alignment = np.abs((codec.basis.numpy() * rows[:6]).sum(1))
    np.testing.assert_allclose(alignment, 1.0, atol=1e-4)


def test_latents_are_uncorrelated_half_white_and_decoding_loses_just_what_was_left_out(
    clips: list[torch.Tensor],
) -> None:
    codec = PatchPCA.fit(clips, P, 6)
    video = torch.stack(clips).transpose(1, 2)  # [B,3,T,H,W]
    latents = codec.encode(video)
    assert latents.shape == (4, 6, 2, 4, 6)
    covariance = torch.cov(latents.transpose(0, 1).flatten(1), correction=0)
    singular = np.linalg.svd(patches(clips) - patches(clips).mean(0), compute_uv=False)
    variance = torch.from_numpy(singular[:6] / singular[:6].mean()).float()
    torch.testing.assert_close(covariance, torch.diag(variance), atol=1e-3, rtol=0)
    left_out = (singular[6:] ** 2).sum() / patches(clips).size
    error = (codec.decode(latents) - video).square().mean().item()
    assert error == pytest.approx(left_out, rel=1e-3)


def test_fit_is_the_same_byte_for_byte_and_wants_videos(clips: list[torch.Tensor]) -> None:
    first, second = (PatchPCA.fit(iter(clips), P, 6).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    with pytest.raises(InputError, match="no video"):
        PatchPCA.fit([], P, 6)


def test_words_are_fixed_vectors_with_a_place() -> None:
    text = embed_words(["Anna talks to Ben", "anna TALKS, to... ben!", "Ben talks to Anna", ""], 6, 16)
    assert text.shape == (4, 6, 16)
    assert torch.equal(text[0], text[1])  # case and punctuation do not matter
    assert not torch.allclose(text[0], text[2])  # order does
    assert text[3].abs().sum() == 0 and text[0, 4:].abs().sum() == 0
    shift = embed_words(["anna", "x anna"], 2, 16)
    place = embed_words(["x x"], 2, 16)[0]
    torch.testing.assert_close(shift[1, 1] - shift[0, 0], place[1] - place[0])


def test_encode_has_the_shape_of_the_grid(
    new_model: Callable[..., Model], videos: list[torch.Tensor]
) -> None:
    family = new_model().family
    video = torch.stack(videos).transpose(1, 2)
    latents = family.encode(video).latents
    assert latents.shape == (3, family.latent_channels, *family.grid.size(3, 32, 48))
    assert family.decode(latents).shape == video.shape
    assert family.decode(latents * 100).abs().max() <= 1


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_a_transformer_that_knows_the_clean_latents_gives_the_velocity(
    level: float, new_model: Callable[..., Model]
) -> None:
    family = new_model().family
    colour = torch.linspace(-2, 2, family.latent_channels)
    torch.nn.init.zeros_(family.transformer.proj_out.weight)  # type: ignore[union-attr, arg-type]
    family.transformer.proj_out.bias.data.copy_(colour)  # type: ignore[union-attr, operator]
    clean = colour.view(1, -1, 1, 1, 1).expand(2, -1, 3, 8, 12)
    noise = torch.randn(clean.shape)
    noisy = (1 - level) * clean + level * noise
    with torch.no_grad():
        levels = torch.full((2, noisy.shape[2]), level)
        guess = family.velocity(noisy, levels, Given(family.embed_text(["", ""])))
    torch.testing.assert_close(guess, noise - clean, atol=1e-4, rtol=0)


def test_place_tells_cells_apart_and_nothing_else() -> None:
    place = place_of(torch.zeros(2, 3, 4, 6, 10))
    assert torch.equal(place[0, :, 0], place[1, :, 3])
    cells = place[0, :, 0].flatten(1).T
    assert torch.cdist(cells, cells).fill_diagonal_(9).min() > 0.1


def test_saved_and_loaded_it_is_the_same(new_model: Callable[..., Model], tmp_path: Path) -> None:
    model = new_model()
    family = model.family
    adapters.save_base(family.transformer, tmp_path / "transformer")
    family.save_frozen(tmp_path)
    loaded = TinyFamily.load(model.config.family, tmp_path)
    video = torch.rand(1, 3, 3, 32, 48)
    assert torch.equal(loaded.encode(video).latents, family.encode(video).latents)
    latents, given = family.encode(video).latents, Given(family.embed_text(["a man"]))
    level = torch.full((1, latents.shape[2]), 0.4)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.velocity(latents, level, given), family.velocity(latents, level, given), atol=0, rtol=0
        )
