"""The wan family: Wan 2.1 and 2.2 as published in diffusers' layout, text-to-video and image-to-video.

Which of them a folder holds is read from its own configurations: a transformer that takes more channels than the
latents have is given a first frame's picture; one with ``image_dim`` also CLIP's tokens of it; ``transformer_2`` is
a second expert, for noise levels below ``boundary_ratio`` (Wan et al. 2025, arXiv 2503.20314; Wan 2.2's README).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from data_prep.records import InputError
from pipeline.config import FamilyConfig, WanConfig
from pipeline.families.contract import Encoded, Entrance, Given, LatentGrid, Outline
from pipeline.families.pretrained import Frozen, Layout, Pretrained, find
from pipeline.families.timesteps import timesteps_of
from pipeline.families.wan_frozen import WanFrozen
from pipeline.objective.processes import Flow, Process

TRANSFORMER = ("WanTransformer3DModel",)
LAYOUT = Layout(
    family="wan",
    pipelines=("WanPipeline", "WanImageToVideoPipeline"),
    parts={
        "transformer": TRANSFORMER,
        "transformer_2": TRANSFORMER,
        "vae": ("AutoencoderKLWan",),
        "text_encoder": ("UMT5EncoderModel",),
        "image_encoder": ("CLIPVisionModel",),
    },
    example="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
)
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
ROUNDING = 1e-5  # of a noise level: what is drawn at the very boundary is the high-noise expert's


@dataclass(frozen=True)
class Kind:
    """What a folder's configurations say. part: the transformer that is trained; other: the other expert, empty
    where there is one transformer; boundary: noise level from which ``transformer`` is used, of two experts;
    pictured: whether it reads a first frame's picture; clip: whether also CLIP's tokens of it."""

    part: str
    other: str
    boundary: float
    grid: LatentGrid
    latent_channels: int
    pictured: bool
    clip: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """All that may be loaded."""
        experts = (self.part, self.other) if self.other else (self.part,)
        return (*experts, *PARTS[1:], *(("image_encoder", "image_processor") if self.clip else ()))

    def process(self, shift: float) -> Process:
        """The flow, between the levels of the expert that is trained."""
        if not self.other:
            return Flow(shift)
        if self.part == "transformer":
            return Flow(shift, lowest=self.boundary)
        return Flow(shift, highest=self.boundary - 2 * ROUNDING)

    def trained_at(self, level: torch.Tensor) -> bool:
        """Whether the expert that is trained is the one for noise levels f32[B,t], each sample's highest."""
        if not self.other:
            return True
        high = level.amax(1) >= self.boundary - ROUNDING
        own = high if self.part == "transformer" else ~high
        assert bool(own.all()) or not bool(own.any()), "one batch, one expert"
        return bool(own.all())


def kind_of(source: Pretrained, expert: str) -> Kind:
    """Reads it from the folder; raises InputError for parts that are missing, or that do not fit each other."""
    source.require(PARTS)
    two = source.has("transformer_2")
    part, other = ("transformer", "transformer_2") if expert == "high" else ("transformer_2", "transformer")
    if two:
        source.require((*PARTS, "transformer_2"))
    elif expert == "low":
        raise InputError(
            f"model.family.wan.expert=low: {source.name!r} has one transformer, without a low-noise expert; set it "
            "to high"
        )
    boundary = source.index.get("boundary_ratio")
    if two and not isinstance(boundary, float):
        raise InputError(
            f"{LAYOUT.knob} {source.name!r}: boundary_ratio={boundary} in model_index.json, beside two "
            "transformers it is a number in (0, 1); fetch the model again"
        )
    transformer, codec = source.config(part), source.config("vae")
    channels, frames = codec.get("z_dim", 16), codec.get("scale_factor_temporal", 4)
    taken, clip = transformer.get("in_channels", 16), transformer.get("image_dim") is not None
    if taken not in (channels, 2 * channels + frames) or transformer.get("pos_embed_seq_len"):
        raise InputError(
            f"{LAYOUT.knob} {source.name!r}: its transformer takes {taken} channels, latents have {channels}; "
            f"text-to-video takes {channels}, a first frame's picture {2 * channels + frames}, and first-and-last-"
            "frame, control and editing models are not known here; give another model"
        )
    if clip:
        source.require((*PARTS, "image_encoder", "image_processor"))
    patch = tuple(transformer.get("patch_size", (1, 2, 2)))
    grid = LatentGrid(frames, codec.get("scale_factor_spatial", 8), cast("tuple[int, int, int]", patch))
    return Kind(part, other if two else "", boundary or 0.0, grid, channels, taken != channels, clip)


class WanEncoders:
    """``contract.Frozen``: what is frozen around the transformer."""

    def __init__(self, source: Pretrained, kind: Kind, config: WanConfig) -> None:
        self.kind = kind
        self.grid = kind.grid
        self.parts = WanFrozen(source, config)
        self._source, self._config = source, config

    @property
    def device(self) -> torch.device:
        """Where text is embedded."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fingerprint(self) -> str:
        """Of the autoencoder's, text encoder's and, where it is read, image encoder's files."""
        parts = [
            part for part in self.kind.parts if not part.startswith("transformer") and part != "scheduler"
        ]
        said = (self._config.text_tokens, self._config.frozen_dtype, self.kind.pictured)
        return self._source.fingerprint(parts, *said)

    @torch.no_grad()
    def encode(self, video: torch.Tensor) -> Encoded:
        """f32[B,3,T,H,W] to latents and, for image-to-video, what is known of the first frame."""
        self.grid.size(*video.shape[2:])
        latents = self.parts.encode(video)
        if not self.kind.pictured:
            return Encoded(latents)
        channels = self.parts.picture_channels(video, self.grid.frames)
        return Encoded(latents, channels, self.parts.picture_tokens(video) if self.kind.clip else None)

    @torch.no_grad()
    def encode_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """f32[B,3,H,W] to f32[B,z,1,h,w]."""
        return self.parts.encode(pictures[:, :, None])

    def embed_text(self, captions: Sequence[str]) -> torch.Tensor:
        """f32[B,text_tokens,D], on ``device``."""
        return self.parts.embed_text(captions, self.device)


class WanFamily(WanEncoders):
    """``contract.Family`` over ``diffusers.WanTransformer3DModel`` as published."""

    pretrained: ClassVar[bool] = True

    def __init__(self, transformer: nn.Module, source: Pretrained, kind: Kind, config: WanConfig) -> None:
        super().__init__(source, kind, config)
        self.transformer = transformer
        self._other: Frozen[Any] = Frozen(self._load_other)
        blocks = cast("Iterable[nn.Module]", transformer.blocks)
        self.sites = tuple(cast("nn.Module", block.attn2) for block in blocks)
        self.self_attentions = tuple(cast("nn.Module", block.attn1) for block in blocks)
        sizes = cast("Any", transformer).config
        self.width: int = sizes.num_attention_heads * sizes.attention_head_dim
        self.latent_channels = kind.latent_channels
        embedding = cast("nn.Module", transformer.patch_embedding)
        self.entrance = Entrance(embedding, self.latent_channels, self.grid.patch)
        self.outline = _outline(kind)
        self.process = kind.process(config.shift)

    @classmethod
    def look(cls, config: FamilyConfig) -> Outline:
        """From the folder's, or the hub's, configuration files."""
        return _outline(kind_of(find(LAYOUT, config.wan.pretrained, config.wan.revision), config.wan.expert))

    @classmethod
    def create(
        cls,
        config: FamilyConfig,
        videos: Iterable[torch.Tensor],
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """As published; all parts are on this machine then. Neither videos nor seed is needed."""
        source = find(LAYOUT, config.wan.pretrained, config.wan.revision)
        kind = kind_of(source, config.wan.expert)
        source.fetch(kind.parts)
        return cls(_transformer(source, kind.part, dtype), source, kind, config.wan)

    @classmethod
    def load(cls, config: FamilyConfig, folder: Path, dtype: torch.dtype = torch.float32) -> Self:
        """An export's own transformer where it has one, else the published one; the rest as published."""
        source = find(LAYOUT, config.wan.pretrained, config.wan.revision, noted=folder)
        kind = kind_of(source, config.wan.expert)
        if (folder / "transformer").is_dir():
            from diffusers import WanTransformer3DModel

            transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=dtype)
        else:
            transformer = _transformer(source, kind.part, dtype)
        return cls(transformer, source, kind, config.wan)

    @classmethod
    def frozen(cls, config: FamilyConfig, folder: Path | None) -> WanEncoders:
        """As published, of the commit that an export notes."""
        source = find(LAYOUT, config.wan.pretrained, config.wan.revision, noted=folder)
        return WanEncoders(source, kind_of(source, config.wan.expert), config.wan)

    @property
    def device(self) -> torch.device:
        """The transformer's."""
        return next(self.transformer.parameters()).device

    def components(self) -> dict[str, nn.Module]:
        """As the published pipeline names them."""
        held: dict[str, Frozen[Any]] = {"vae": self.parts.codec, "text_encoder": self.parts.text_encoder}
        if self.kind.clip:
            held["image_encoder"] = self.parts.image_encoder
        if self.kind.other:
            held["transformer_2"] = self._other
        return {name: part.on(self.device) for name, part in held.items()}

    def save_frozen(self, folder: Path) -> None:
        """Notes the hub's commit; the parts themselves are published."""
        self._source.note(folder)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """f32[B,z,t,h,w] to f32[B,3,T,H,W] in [-1,1]; gradients pass."""
        return self.parts.decode(latents)

    def velocity(self, latents: torch.Tensor, level: torch.Tensor, given: Given) -> torch.Tensor:
        """The transformer's own answer: Wan predicts the flow's velocity. Of two experts, the one for the level;
        the one that is not trained is as published, without identity attention.

        Raises:
            InputError: an image-to-video model without a picture, or with a clean first frame.
        """
        if self.kind.pictured and (given.channels is None or bool((level != level[:, :1]).any())):
            raise InputError(
                "model.family.wan: an image-to-video model is given its first frame as a picture, not as clean "
                "latents; set model.noise.anchor to 0, and give a picture to generate from"
            )
        hidden = latents if given.channels is None else torch.cat([latents, given.channels], 1)
        _, height, width = self.grid.patch
        timesteps = timesteps_of(level, (latents.shape[3] // height) * (latents.shape[4] // width))
        expert: Any = self.transformer if self.kind.trained_at(level) else self._other.on(latents.device)
        answer: torch.Tensor = expert(hidden, timesteps, given.text, given.image, return_dict=False)[0]
        return answer

    def _load_other(self) -> Any:
        embedding = cast(
            "nn.Module", cast("Any", self.transformer).patch_embedding
        )  # never kept in fp32 nor quantised
        return _transformer(self._source, self.kind.other, next(embedding.parameters()).dtype)


def _outline(kind: Kind) -> Outline:
    return Outline(kind.grid, anchors=not kind.pictured, pictured=kind.pictured)


def _transformer(source: Pretrained, part: str, dtype: torch.dtype) -> Any:
    from diffusers import WanTransformer3DModel

    return source.load(part, WanTransformer3DModel, dtype)
