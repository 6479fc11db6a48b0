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
                scalars[f"loss_{name}"] = loss(prediction)
                total = total + weight * scalars[f"loss_{name}"]
        characters = batch.cast_mask.sum(1).clamp(min=1)
        share = (references.outside.sum(1) / characters).mean()
        accuracy = router_accuracy(prediction)
        return {"loss": total, **scalars, "router_accuracy": accuracy, "cross_face_share": share}

    def _context(self, batch: Batch, references: noise.ChosenReferences) -> CastContext:
        tokens = self.model.identity(references.embeddings, references.mask)
        dropped = noise.coins(self.seed, batch.positions, "cast_drop", self.config.noise.cast_drop)
        return self.model.identity.context(tokens, batch.cast_mask, (~dropped).float())

    def _predict(self, batch: Batch, context: CastContext) -> Prediction:
        family, drawn = self.model.family, self.config.noise
        with torch.no_grad():
            latents = family.encode(batch.video)
            dropped = noise.coins(self.seed, batch.positions, "text_drop", drawn.text_drop).tolist()
            captions = ["" if drop else c for drop, c in zip(dropped, batch.captions, strict=True)]
            text = family.embed_text(captions).to(latents.device)
            sigma = noise.noise_levels(drawn, self.seed, batch.positions, family.shift)
            noisy, target = noise.add_noise(
                latents, noise.noise_like(latents, self.seed, batch.positions), sigma
            )
            coverage = family.grid.coverage(batch.label_map, batch.cast_mask.shape[1])
            takes_mask = noise.coins(
                self.seed, batch.positions, "mask_loss", self.config.losses.mask_probability
            )
        velocity = self.model.velocity(noisy, sigma, text, context)
        routing = tuple(context.routing[layer] for layer in sorted(context.routing))
        return Prediction(velocity, target, coverage, family.grid.tokens(coverage), routing, takes_mask)


def build(config: ModelConfig, model: Model, seed: int) -> DiffusionObjective:
    """The objective of a run; ``seed`` and each sample's position decide all that is drawn."""
    return DiffusionObjective(config, model, seed)
