"""What training minimises: from a batch of clips and references to named scalars, by one forward pass.

Family, noise and losses are put together here and nowhere else; the trainer sees an ``nn.Module`` that answers a
dict whose ``loss`` it minimises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipeline.batch import Batch
from pipeline.config import ModelConfig, NoiseConfig
from pipeline.data.features import OUTSIDE, OWN
from pipeline.families.contract import Encoded, Given
from pipeline.identity import canvas
from pipeline.identity.attention import CastContext
from pipeline.identity.lock import with_locked
from pipeline.model import Model
from pipeline.objective import noise
from pipeline.objective.curves import by_character, by_level
from pipeline.objective.face_network import FaceNetwork
from pipeline.objective.losses import LOSSES, Prediction, mask_errors, router_accuracy
from pipeline.objective.preservation import Estimate, identity_preservation
from pipeline.objective.schedule import fine_share


@dataclass(frozen=True)
class Asked:
    """One pass: what the model answered, to noisy latents f32[B,C,t,h,w] at levels f32[B,t]; missing: first frames
    of these that are not the video's own but fill a token."""

    prediction: Prediction
    noisy: torch.Tensor
    level: torch.Tensor
    missing: int


class DiffusionObjective(nn.Module):
    """``pipeline.batch.Objective`` over a model: the transformer's and the identity network's parameters."""

    def __init__(
        self,
        config: ModelConfig,
        model: Model,
        seed: int,
        shown: Sequence[str] = (),
        faces: FaceNetwork | None = None,
        locked: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """``shown``: characters with an error curve of their own; ``faces``: what recognises them, for the identity
        loss, which is left out without it; ``locked``: character id to tokens, see ``identity.lock``."""
        super().__init__()
        self.config = config
        self.model = model
        self.seed = seed
        self.shown = tuple(shown)
        self.locked = dict(locked or {})
        self.faces = (faces,)  # no module of ours: an engine would change its precision and save it

    @property
    def counted(self) -> tuple[nn.Module, ...]:
        """What a step's operations are counted in; identity attention runs inside the transformer."""
        return self.model.transformer, self.model.identity.encoder

    def full_precision(self) -> list[nn.Parameter]:
        """Frozen weights that an engine leaves in fp32."""
        return self.model.full_precision()

    def forward(self, batch: Batch, level: float | None = None) -> dict[str, torch.Tensor]:
        """Scalars: loss, loss_NAME for each loss with a weight, router_accuracy, cross_face_share, the share of
        characters that were shown a face from outside their sample, and visual_tokens, of a sample; and pairs (see
        ``curves``): loss_diffusion by noise level, mask_error by character; with a schedule also fine_share. With a
        ``level`` all samples are at that one, and nothing is dropped.
        """
        drawn = self.config.noise
        if level is not None:
            drawn = replace(drawn, text_drop=0.0, cast_drop=0.0, cross_face=1.0, anchor=0.0)
        references = noise.choose_references(drawn, self.seed, batch)
        fine = self._fine_share(batch)
        context = self._context(batch, references, drawn, fine)
        asked = self._predict(batch, context, drawn, level)
        prediction = asked.prediction
        scalars: dict[str, torch.Tensor] = {}
        curves = by_character("mask_error", *mask_errors(prediction), batch.cast, self.shown)
        total = prediction.velocity.new_zeros((), dtype=torch.float32)
        for name, loss in LOSSES.items():
            weight: float = getattr(self.config.losses, name)
            if weight > 0:
                values = loss(prediction)
                if name == "diffusion":
                    curves |= by_level("loss_diffusion", values, asked.level.amax(1))
                scalars[f"loss_{name}"] = values.mean()
                total = total + weight * self._scheduled(name, values, fine)
        if self.config.losses.identity > 0 and self.faces[0] is not None:
            values = self._preserved(batch, asked, context.strength > 0)
            scalars["loss_identity"] = values.mean()
            total = total + self.config.losses.identity * self._scheduled("identity", values, fine)
        characters = batch.cast_mask.sum(1).clamp(min=1)
        share = (references.outside.sum(1) / characters).mean()
        scalars |= {"router_accuracy": router_accuracy(prediction).mean(), "cross_face_share": share}
        scalars["visual_tokens"] = total.new_tensor(float(prediction.token_coverage.shape[-1]))
        if self.config.schedule.coarse or self.config.schedule.fade_in:
            scalars["fine_share"] = fine.mean()
        return {"loss": total, **scalars, **curves}

    def _context(
        self, batch: Batch, references: noise.ChosenReferences, drawn: NoiseConfig, fine: torch.Tensor
    ) -> CastContext:
        tokens = self.model.identity(references.embeddings, references.mask)
        tokens = with_locked(tokens, batch.cast, self.locked)
        shown = (~noise.coins(self.seed, batch.positions, "cast_drop", drawn.cast_drop)).float()
        canvases = None
        if self.model.identity.low_frequency is not None:
            canvases = self._canvases(batch, references) * shown.view(-1, 1, 1, 1, 1)
        return self.model.identity.context(tokens, batch.cast_mask, shown * fine, canvases=canvases)

    def _fine_share(self, batch: Batch) -> torch.Tensor:
        """f32[B]: what of identity attention counts so far."""
        if batch.progress is None:
            return torch.ones(len(batch.keys), device=batch.positions.device)
        return fine_share(self.config.schedule, batch.progress)

    def _scheduled(self, name: str, values: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """The mean of a loss f32[B], of what counts of it so far."""
        return (values * fine if name in self.config.schedule.losses else values).mean()

    @torch.no_grad()
    def _canvases(self, batch: Batch, references: noise.ChosenReferences) -> torch.Tensor:
        """Latents f32[B,C,2,h,w] of the canvases: of each character the face that its embeddings are of, where they
        are of several the first."""
        assert batch.pictures is not None and batch.landmarks is not None, "samples come without pictures"
        own = (batch.cast_mask & ~references.outside)[..., None, None]  # [B,N,1,1]
        crops = torch.where(own[..., None], batch.pictures[:, :, OWN], batch.pictures[:, :, OUTSIDE])
        points = torch.where(own, batch.landmarks[:, :, OWN], batch.landmarks[:, :, OUTSIDE])
        drawn = canvas.canvases(crops, points, batch.cast_mask, self._size(batch))
        noised = noise.noise_pictures(self.config.noise, self.seed, batch.positions, drawn)
        return self.model.encode_canvases(noised)

    def _size(self, batch: Batch) -> tuple[int, int]:
        """Height and width of the videos, in pixels."""
        if batch.frozen is not None:
            pixels = self.model.family.grid.pixels
            height, width = batch.frozen.latents.shape[-2:]
            return height * pixels, width * pixels
        assert batch.video is not None
        return batch.video.shape[-2], batch.video.shape[-1]

    def _predict(self, batch: Batch, context: CastContext, drawn: NoiseConfig, fixed: float | None) -> Asked:
        """What the model answers."""
        family, seed, positions = self.model.family, self.seed, batch.positions
        with torch.no_grad():
            encoded, coverage = self._encoded(batch)
            text = self._text(batch, drawn.text_drop).to(encoded.latents.device)
            given = Given(text, encoded.channels, encoded.image)
            clean = family.grid.filled(encoded.latents)
            level = self._levels(positions, clean.shape[2], drawn, fixed)
            eps = noise.noise_like(clean, seed, positions)
            noisy, target = family.process.noisy(clean, eps, level)
            coverage = family.grid.filled(coverage)
            takes_mask = noise.coins(seed, positions, "mask_loss", self.config.losses.mask_probability)
        velocity = self.model.velocity(noisy, level, given, context)
        prediction = Prediction(
            velocity=velocity,
            target=target,
            counted=(level > 0).float(),
            coverage=coverage,
            token_coverage=family.grid.tokens(coverage),
            routing=tuple(context.routing[layer] for layer in sorted(context.routing)),
            takes_mask=takes_mask,
        )
        return Asked(prediction, noisy, level, clean.shape[2] - encoded.latents.shape[2])

    def _preserved(self, batch: Batch, asked: Asked, cast_seen: torch.Tensor) -> torch.Tensor:
        """The identity loss f32[B], 0 for samples at too much noise or whose cast was dropped (bool[B])."""
        chosen, family = self.config.losses, self.model.family
        assert self.faces[0] is not None and batch.label_map is not None
        share = family.process.noise_share(asked.level.amax(1))
        low = (share < chosen.identity_below) & cast_seen
        values = torch.zeros_like(share)
        if not low.any():
            return values
        clean = family.process.clean(asked.noisy, asked.prediction.velocity.float(), asked.level)[low]
        video = checkpoint(family.decode, self._first(clean[:, :, asked.missing :]), use_reentrant=False)
        estimate = Estimate(
            video=video,
            label_map=batch.label_map[low, : video.shape[2]],
            references=batch.references[low],
            reference_mask=batch.reference_mask[low],
            cast_mask=batch.cast_mask[low],
            sigma=share[low],
        )
        limits = (chosen.identity_below, chosen.identity_drift, chosen.identity_min_face_px)
        faces = self.faces[0].to(video.device)
        return values.masked_scatter(low, identity_preservation(estimate, faces, *limits))

    def _first(self, clean: torch.Tensor) -> torch.Tensor:
        """The first latent frames of the video, as many as are decoded. A causal codec decodes them as it would in
        the whole video; CogVideoX's takes three at once, then two and two."""
        frames = self.model.family.grid.frames
        wanted = 1 + (self.config.losses.identity_frames - 1) // frames
        return clean[:, :, : wanted if frames == 1 else max(3, wanted | 1)]

    def _encoded(self, batch: Batch) -> tuple[Encoded, torch.Tensor]:
        """What the frozen parts make of the videos, and each character's coverage f32[B,N,t,h,w]; from the cache
        where the batch comes from there."""
        if (kept := batch.frozen) is not None:
            rest = (None if value is None else value.float() for value in (kept.channels, kept.image))
            return Encoded(kept.latents.float(), *rest), kept.coverage
        assert batch.video is not None and batch.label_map is not None
        family = self.model.family
        coverage = family.grid.coverage(batch.label_map, batch.cast_mask.shape[1])
        encoded = family.encode(
            batch.video
        )  # in the layout of what comes from a cache: sums are taken in its order
        return replace(encoded, latents=encoded.latents.contiguous()), coverage

    def _text(self, batch: Batch, drop: float) -> torch.Tensor:
        """Text embeddings f32[B,S,D], of nothing where the caption is dropped."""
        dropped = noise.coins(self.seed, batch.positions, "text_drop", drop)
        if batch.frozen is not None:
            return batch.frozen.texts(dropped)
        captions = ["" if drop else c for drop, c in zip(dropped.tolist(), batch.captions, strict=True)]
        return self.model.family.embed_text(captions)

    def _levels(
        self, positions: torch.Tensor, num_frames: int, drawn: NoiseConfig, fixed: float | None
    ) -> torch.Tensor:
        """Noise levels f32[B,t] per latent frame, 0 at the first one of a sample that is anchored."""
        if fixed is not None:
            return torch.full((len(positions), num_frames), fixed, device=positions.device)
        level = noise.noise_levels(drawn, self.seed, positions, self.model.family.process)
        anchors = noise.coins(self.seed, positions, "anchor", drawn.anchor if num_frames > 1 else 0.0)
        return noise.anchored(level, anchors, noise.given_frames(drawn, self.seed, positions, num_frames))


def build(
    config: ModelConfig,
    model: Model,
    seed: int,
    shown: Sequence[str] = (),
    faces: FaceNetwork | None = None,
    locked: Mapping[str, torch.Tensor] | None = None,
) -> DiffusionObjective:
    """The objective of a run; ``seed`` and each sample's position decide all that is drawn."""
    return DiffusionObjective(config, model, seed, shown, faces, locked)
