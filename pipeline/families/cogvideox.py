"""The cogvideox family: CogVideoX 1.0 (2b, 5b, 5b-I2V) and 1.5 (5B, 5B-I2V) in diffusers' layout.

Which of them it is stands in the folder's own configurations: sine or rotary positions, learned ones, two frames to
a token (``patch_size_t``), a first frame beside the noise (``in_channels`` twice ``out_channels``). Text and video
tokens go through one attention, ``attn1``, and identity attention adds to the video's part of its answer, so the
block's own gate scales both (as adapters for SD3 and FLUX do in joint blocks); at step 0 that gate is the
pretrained one and gradients reach identity through it. ConsisID adds behind a whole block instead, ungated: there
its own ablation found 0.62 likeness, against 0.73 between attention and feed-forward (arXiv 2411.17440).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from data_prep.records import InputError
from pipeline.config import CogVideoXConfig, FamilyConfig
from pipeline.families.contract import Encoded, Entrance, Given, LatentGrid, Outline
from pipeline.families.pretrained import DTYPES, Frozen, Layout, Pretrained, find
from pipeline.objective.processes import Process, VPrediction

LAYOUT = Layout(
    family="cogvideox",
    pipelines=("CogVideoXPipeline", "CogVideoXImageToVideoPipeline"),
    parts={
        "transformer": ("CogVideoXTransformer3DModel",),
        "vae": ("AutoencoderKLCogVideoX",),
        "text_encoder": ("T5EncoderModel",),
        "tokenizer": (),
        "scheduler": ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"),
    },
    example="zai-org/CogVideoX-5b",
)
VOCABULARIES = (
    "spiece.model",
    "tokenizer.json",
)  # without one, transformers makes an empty tokenizer silently
OFFSET = 2.0  # what 1.5's image-to-video transformer is told of ofs, always (its pipeline)


class CogVideoXEncoders:
    """``contract.Frozen``: what is frozen around the transformer."""

    def __init__(self, source: Pretrained, config: CogVideoXConfig) -> None:
        self.source = source
        self.config = config
        self.outline = outline_of(source)
        self.grid = self.outline.grid
        self.codec = Frozen(lambda: _codec(source))
        self.text_encoder = Frozen(lambda: _text_encoder(source, DTYPES[config.frozen_dtype]))

    @property
    def device(self) -> torch.device:
        """Where text is embedded."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def fingerprint(self) -> str:
        """Of the autoencoder's and the text encoder's files."""
        said = (self.config.text_tokens, self.config.frozen_dtype, self.outline.pictured)
        return self.source.fingerprint(("vae", "text_encoder", "tokenizer"), *said)

    @torch.no_grad()
    def encode(self, video: torch.Tensor) -> Encoded:
        """f32[B,3,T,H,W] to f32[B,C,t,h,w], the codec's mean rather than a draw. The first frame's own latents are
        the channels of an image-to-video transformer, zero in later frames."""
        self.grid.size(*video.shape[2:])
        scale = float(self._codec_shape["scaling_factor"])
        latents = self._encoded(video) * scale
        if not self.outline.pictured:
            return Encoded(latents)
        # 1.5 was trained on first frames that were divided by what videos are multiplied with
        first = self._encoded(video[:, :, :1])
        first = 1 / scale * first if self._codec_shape.get("invert_scale_latents") else scale * first
        later = first.new_zeros(*latents.shape[:2], latents.shape[2] - 1, *latents.shape[3:])
        return Encoded(latents, channels=torch.cat([first, later], 2))

    @torch.no_grad()
    def encode_pictures(self, pictures: torch.Tensor) -> torch.Tensor:
        """f32[B,3,H,W] to f32[B,C,1,h,w], also where the model has learned positions for one video alone."""
        return self._encoded(pictures[:, :, None]) * float(self._codec_shape["scaling_factor"])

    @torch.no_grad()
    def embed_text(self, captions: Sequence[str]) -> torch.Tensor:
        """f32[B,text_tokens,D], padding embedded like any token, as in training; on ``device``."""
        device = self.device
        asked = self._tokenizer(
            list(captions),
            padding="max_length",
            max_length=self.config.text_tokens,
            truncation=True,
            return_tensors="pt",
        )
        encoder = self.text_encoder.on(device)
        with torch.autocast(device.type, enabled=False):
            text: torch.Tensor = encoder(asked.input_ids.to(device))[0]
        return text.float()

    def _encoded(self, video: torch.Tensor) -> torch.Tensor:
        with torch.autocast(video.device.type, enabled=False):
            codec = cast("Any", self.codec.on(video.device))
            latents: torch.Tensor = codec.encode(video.float()).latent_dist.mode()
        return latents

    @cached_property
    def _codec_shape(self) -> dict[str, Any]:
        return self.source.config("vae")

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        self.source.fetch(("tokenizer",))
        if not any((self.source.folder / "tokenizer" / name).is_file() for name in VOCABULARIES):
            raise InputError(
                f"{LAYOUT.knob} {self.source.name!r}: no {' or '.join(VOCABULARIES)} in its tokenizer folder; "
                "fetch the model again"
            )
        return self.source.load("tokenizer", AutoTokenizer)


class CogVideoXFamily(CogVideoXEncoders):
    """``contract.Family`` over ``diffusers.CogVideoXTransformer3DModel``."""

    pretrained: ClassVar[bool] = True

    def __init__(self, transformer: nn.Module, source: Pretrained, config: CogVideoXConfig) -> None:
        super().__init__(source, config)
        shape = cast("Any", transformer).config
        blocks = cast("Iterable[nn.Module]", transformer.transformer_blocks)
        self.transformer = transformer
        self.sites = tuple(cast("nn.Module", block.attn1) for block in blocks)
        self.self_attentions: tuple[nn.Module, ...] = ()  # attn1 copies a mask for each head: 30 GB in 5b
        self.width = int(shape.num_attention_heads * shape.attention_head_dim)
        self.latent_channels = int(shape.out_channels)
        embedding = cast("nn.Module", transformer.patch_embed)
        self.entrance = Entrance(embedding, self.latent_channels, self.grid.patch, joint=True)
        levels = process_of(source)
        self.process: Process = levels
        self._timesteps = levels.timesteps

    @classmethod
    def look(cls, config: FamilyConfig) -> Outline:
        """What the folder's configurations say."""
        return outline_of(find_model(config.cogvideox))

    @classmethod
    def create(
        cls,
        config: FamilyConfig,
        videos: Iterable[torch.Tensor],
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """The published weights."""
        from diffusers import CogVideoXTransformer3DModel

        source = find_model(config.cogvideox)
        transformer = source.load("transformer", CogVideoXTransformer3DModel, dtype)
        return cls(transformer, source, config.cogvideox)

    @classmethod
    def load(cls, config: FamilyConfig, folder: Path, dtype: torch.dtype = torch.float32) -> Self:
        """The export's own transformer where it has one, else the published weights."""
        from diffusers import CogVideoXTransformer3DModel

        source, own = find_model(config.cogvideox, folder), folder / "transformer"
        if own.is_dir():
            transformer = CogVideoXTransformer3DModel.from_pretrained(own, torch_dtype=dtype)
        else:
            transformer = source.load("transformer", CogVideoXTransformer3DModel, dtype)
        return cls(transformer, source, config.cogvideox)

    @classmethod
    def frozen(cls, config: FamilyConfig, folder: Path | None) -> CogVideoXEncoders:
        """As published, of the commit that an export notes."""
        return CogVideoXEncoders(find_model(config.cogvideox, folder), config.cogvideox)

    @property
    def device(self) -> torch.device:
        """The transformer's."""
        return next(self.transformer.parameters()).device

    def components(self) -> dict[str, nn.Module]:
        """As the published pipeline names them."""
        return {"vae": self.codec.on(self.device), "text_encoder": self.text_encoder.on(self.device)}

    def save_frozen(self, folder: Path) -> None:
        """Writes no weights: which published model it goes with."""
        self.source.note(folder)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """f32[B,C,t,h,w] to f32[B,3,T,H,W], clamped to [-1,1]."""
        scaled = 1 / float(self._codec_shape["scaling_factor"]) * latents.float()
        with torch.autocast(latents.device.type, enabled=False):
            video: torch.Tensor = cast("Any", self.codec.on(latents.device)).decode(scaled).sample
        return video.clamp(-1, 1)

    def velocity(self, latents: torch.Tensor, level: torch.Tensor, given: Given) -> torch.Tensor:
        """See the contract. Frames that do not fill tokens are filled by the first, whose answers are dropped; who
        trains or samples fills them before the noise, as the authors do."""
        shape, cells = cast("Any", self.transformer).config, self.grid.filled(latents)
        if self.outline.pictured:
            if given.channels is None:
                raise InputError(
                    f"{LAYOUT.knob} {self.source.name!r} makes videos of a picture and none is given; take a "
                    "text-to-video model, such as " + LAYOUT.example
                )
            # the picture lies beside the first frame, filled in or not, and zeros behind it (pipeline and training)
            rest = (0, 0, 0, 0, 0, cells.shape[2] - given.channels.shape[2])
            cells = torch.cat([cells, nn.functional.pad(given.channels, rest)], 1)
        answer: torch.Tensor = self.transformer(
            cells.transpose(1, 2),  # [B,t,C,h,w]
            given.text,
            self._timesteps(level[:, 0]),
            ofs=latents.new_full((1,), OFFSET) if shape.ofs_embed_dim else None,
            image_rotary_emb=rotary(shape, cells),
            return_dict=False,
        )[0]
        return answer.transpose(1, 2)[:, :, -latents.shape[2] :]


def find_model(config: CogVideoXConfig, noted: Path | None = None) -> Pretrained:
    """The model that a configuration names, checked before its weights are read; ``noted``: an export of it."""
    source = find(LAYOUT, config.pretrained, config.revision, noted)
    source.require(tuple(LAYOUT.parts))
    tokens = source.config("transformer").get("max_text_seq_length", 226)
    if config.text_tokens != tokens:
        raise InputError(
            f"model.family.cogvideox.text_tokens={config.text_tokens}: {source.name!r} was trained to read "
            f"{tokens}; set it to {tokens}"
        )
    return source


def outline_of(source: Pretrained) -> Outline:
    """Its grid, and whether it makes videos of a picture: that stands beside the noise, in channels of its own."""
    shape, codec = source.config("transformer"), source.config("vae")
    pixels = 2 ** (len(codec["block_out_channels"]) - 1)
    patch = (shape.get("patch_size_t") or 1, *2 * (shape.get("patch_size", 2),))
    only = None
    if shape.get("use_learned_positional_embeddings"):
        only = (shape["sample_frames"], shape["sample_height"] * pixels, shape["sample_width"] * pixels)
    grid = LatentGrid(int(codec["temporal_compression_ratio"]), pixels, patch, only)
    return Outline(grid, anchors=False, pictured=shape.get("in_channels", 16) > shape.get("out_channels", 16))


def process_of(source: Pretrained) -> VPrediction:
    """Its scheduler's noise levels: shifted in signal-to-noise ratio and rescaled so that the last is noise alone,
    as its configuration says; whatever sampler that names, the levels are the same for all."""
    from diffusers import CogVideoXDDIMScheduler

    settings = source.config("scheduler")
    if settings.get("prediction_type") != "v_prediction":
        raise InputError(
            f"{LAYOUT.knob} {source.name!r}: its scheduler says prediction_type="
            f"{settings.get('prediction_type')!r}; this family takes 'v_prediction'; give another model"
        )
    alphas: torch.Tensor = CogVideoXDDIMScheduler.from_config(settings).alphas_cumprod
    return VPrediction(alphas.double(), settings)


def rotary(shape: Mapping[str, Any], cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Cosines and sines f32[L,D] of the tokens' places for latent cells [B,C,t,h,w]; None for sine positions, which
    the transformer adds itself. 1.0 lays the asked picture into the trained one, 1.5 counts from its corner."""
    if not shape["use_rotary_positional_embeddings"]:
        return None
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    p, p_t = shape["patch_size"], shape["patch_size_t"]
    frames, height, width = cells.shape[2], cells.shape[3] // p, cells.shape[4] // p
    trained = (shape["sample_height"] // p, shape["sample_width"] // p)
    if p_t is None:
        region = get_resize_crop_region_for_grid((height, width), trained[1], trained[0])
        rest: dict[str, Any] = {"crops_coords": region, "temporal_size": frames}
    else:
        rest = {
            "crops_coords": None,
            "temporal_size": frames // p_t,
            "grid_type": "slice",
            "max_size": trained,
        }
    head = shape["attention_head_dim"]
    cosines, sines = get_3d_rotary_pos_embed(head, grid_size=(height, width), device=cells.device, **rest)
    return cosines, sines


def _codec(source: Pretrained) -> nn.Module:
    from diffusers import AutoencoderKLCogVideoX

    codec = source.load("vae", AutoencoderKLCogVideoX, torch.float32)
    codec.enable_slicing()  # one video at a time: the same values in a batch's share of the memory
    return cast("nn.Module", codec)


def _text_encoder(source: Pretrained, dtype: torch.dtype) -> nn.Module:
    from transformers import T5EncoderModel

    return cast("nn.Module", source.load("text_encoder", T5EncoderModel, dtype))
