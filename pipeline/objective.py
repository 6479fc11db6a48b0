"""What training minimises: from a batch of clips and references to named scalars, by one forward pass.

Family, noise and losses are put together here and nowhere else; the trainer sees an ``nn.Module`` that answers a
dict whose ``loss`` it minimises.
"""

from __future__ import annotations

import torch
from torch import nn

from pipeline import noise
from pipeline.batch import Batch
from pipeline.config import ModelConfig
from pipeline.families.contract import Given
from pipeline.identity.attention import CastContext
from pipeline.losses import LOSSES, Prediction, router_accuracy
from pipeline.model import Model


class DiffusionObjective(nn.Module):
    """``pipeline.batch.Objective`` over a model: the transformer's and the identity network's parameters."""

    def __init__(self, config: ModelConfig, model: Model, seed: int) -> None:
        super().__init__()
        self.config = config
        self.model = model
        self.seed = seed

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Scalars: loss, loss_NAME for each loss with a weight, router_accuracy, and cross_face_share, the share of
        characters that were shown a face from outside their sample."""
        references = noise.choose_references(self.config.noise, self.seed, batch)
        context = self._context(batch, references)
        prediction = self._predict(batch, context)
        scalars: dict[str, torch.Tensor] = {}
        total = prediction.velocity.new_zeros((), dtype=torch.float32)
        for name, loss in LOSSES.items():
            weight: float = getattr(self.config.losses, name)
            if weight > 0:
                scalars[f"loss_{name}"] = loss(prediction).mean()
                total = total + weight * scalars[f"loss_{name}"]
        characters = batch.cast_mask.sum(1).clamp(min=1)
        share = (references.outside.sum(1) / characters).mean()
        accuracy = router_accuracy(prediction).mean()
        return {"loss": total, **scalars, "router_accuracy": accuracy, "cross_face_share": share}

    def _context(self, batch: Batch, references: noise.ChosenReferences) -> CastContext:
        tokens = self.model.identity(references.embeddings, references.mask)
        dropped = noise.coins(self.seed, batch.positions, "cast_drop", self.config.noise.cast_drop)
        return self.model.identity.context(tokens, batch.cast_mask, (~dropped).float())

    def _predict(self, batch: Batch, context: CastContext) -> Prediction:
        family, seed, positions = self.model.family, self.seed, batch.positions
        with torch.no_grad():
            encoded = family.encode(batch.video)
            given = Given(self._text(batch).to(encoded.latents.device), encoded.channels, encoded.image)
            clean = family.grid.filled(encoded.latents)
            level = self._levels(positions, clean.shape[2])
            eps = noise.noise_like(clean, seed, positions)
            noisy, target = family.process.noisy(clean, eps, level)
            coverage = family.grid.filled(family.grid.coverage(batch.label_map, batch.cast_mask.shape[1]))
            takes_mask = noise.coins(seed, positions, "mask_loss", self.config.losses.mask_probability)
        velocity = self.model.velocity(noisy, level, given, context)
        return Prediction(
            velocity=velocity,
            target=target,
            counted=(level > 0).float(),
            coverage=coverage,
            token_coverage=family.grid.tokens(coverage),
            routing=tuple(context.routing[layer] for layer in sorted(context.routing)),
            takes_mask=takes_mask,
        )

    def _text(self, batch: Batch) -> torch.Tensor:
        """Text embeddings f32[B,S,D], of nothing where the caption is dropped."""
        dropped = noise.coins(self.seed, batch.positions, "text_drop", self.config.noise.text_drop).tolist()
        captions = ["" if drop else c for drop, c in zip(dropped, batch.captions, strict=True)]
        return self.model.family.embed_text(captions)

    def _levels(self, positions: torch.Tensor, num_frames: int) -> torch.Tensor:
        """Noise levels f32[B,t] per latent frame, 0 at the first one of a sample that is anchored."""
        drawn = self.config.noise
        level = noise.noise_levels(drawn, self.seed, positions, self.model.family.process)
        anchors = noise.coins(self.seed, positions, "anchor", drawn.anchor if num_frames > 1 else 0.0)
        return noise.anchored(level, anchors, num_frames)


def build(config: ModelConfig, model: Model, seed: int) -> DiffusionObjective:
    """The objective of a run; ``seed`` and each sample's position decide all that is drawn."""
    return DiffusionObjective(config, model, seed)
