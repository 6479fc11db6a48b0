"""What is frozen around a Wan transformer: its video autoencoder, text encoder and image encoder.

Each does what diffusers' WanPipeline and WanImageToVideoPipeline do with it, operation by operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from pipeline.config import WanConfig
from pipeline.families.pretrained import DTYPES, Frozen, Pretrained


class WanFrozen:
    """The frozen parts of one published Wan, each loaded when it is first asked."""

    def __init__(self, source: Pretrained, config: WanConfig) -> None:
        self._source = source
        self._text_tokens = config.text_tokens
        self._text_dtype = DTYPES[config.frozen_dtype]
        self.codec: Frozen[Any] = Frozen(self._load_codec)
        self.text_encoder: Frozen[Any] = Frozen(self._load_text_encoder)
        self.image_encoder: Frozen[Any] = Frozen(self._load_image_encoder)

    def _load_codec(self) -> Any:
        from diffusers import AutoencoderKLWan

        return self._source.load("vae", AutoencoderKLWan, torch.float32)

    def _load_text_encoder(self) -> Any:
        from transformers import UMT5EncoderModel

        return self._source.load("text_encoder", UMT5EncoderModel, self._text_dtype)

    def _load_image_encoder(self) -> Any:
        from transformers import CLIPVisionModel

        return self._source.load("image_encoder", CLIPVisionModel, torch.float32)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return self._source.load("tokenizer", AutoTokenizer)

    @cached_property
    def _image_processor(self) -> Any:
        from transformers import CLIPImageProcessorPil  # Pillow's bicubic; the other one needs torchvision

        return self._source.load("image_processor", CLIPImageProcessorPil)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """f32[B,3,T,H,W] in [-1,1] to the mode of the posterior, normalised per channel, f32[B,z,t,h,w]."""
        codec = self.codec.on(video.device)
        mean, scale = _statistics(codec, video.device)
        latents: torch.Tensor = (codec.encode(video.float()).latent_dist.mode() - mean) * scale
        return latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse, f32[B,3,T,H,W] in [-1,1]; gradients pass."""
        codec = self.codec.on(latents.device)
        mean, scale = _statistics(codec, latents.device)
        video: torch.Tensor = codec.decode(latents.float() / scale + mean, return_dict=False)[0]
        return video

    def picture_channels(self, video: torch.Tensor, frames: int) -> torch.Tensor:
        """What an image-to-video transformer reads beside noisy latents, f32[B,frames+z,t,h,w]: which source frames
        of each latent frame are given, and the latents of the first frame followed by grey.

        video: f32[B,3,T,H,W]; frames: source frames that share a latent frame.
        """
        given = torch.cat([video[:, :, :1], torch.zeros_like(video[:, :, 1:])], 2)
        latents = self.encode(given)
        mask = torch.zeros_like(latents[:, :1]).repeat(1, frames, 1, 1, 1)
        mask[:, :, 0] = 1
        return torch.cat([mask, latents], 1)

    def picture_tokens(self, video: torch.Tensor) -> torch.Tensor:
        """The last hidden state but one of CLIP over each first frame, f32[B,S,D]."""
        pictures = ((video[:, :, 0].float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        images = list(pictures.permute(0, 2, 3, 1).cpu().numpy())  # each u8[H,W,3]
        pixels = self._image_processor(images=images, return_tensors="pt")["pixel_values"]
        encoder = self.image_encoder.on(video.device)
        tokens: torch.Tensor = encoder(pixels.to(video.device), output_hidden_states=True).hidden_states[-2]
        return tokens

    @torch.no_grad()
    def embed_text(self, captions: Sequence[str], device: torch.device) -> torch.Tensor:
        """f32[B,text_tokens,D], zero after the last token of each caption."""
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        tokens = self._tokenizer(
            [prompt_clean(caption) for caption in captions],
            padding="max_length",
            max_length=self._text_tokens,
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(device)
        encoder = self.text_encoder.on(device)
        text: torch.Tensor = encoder(tokens.input_ids.to(device), mask).last_hidden_state.float()
        return torch.where(mask.to(text.device)[..., None] > 0, text, 0.0)  # padding stands at the end


def _statistics(codec: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / deviation of each latent channel, f32[1,z,1,1,1]."""
    mean, deviation = (
        torch.tensor(values, device=device).view(1, -1, 1, 1, 1)
        for values in (codec.config.latents_mean, codec.config.latents_std)
    )
    return mean, 1.0 / deviation
