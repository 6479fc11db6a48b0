"""CLIPScore: how well the frames fit the words.

100 · max(cos(image, text), 0) of each frame, averaged over frames: Hessel et al. 2021 (arXiv 2104.08718, eq. 1)
with the weight of 100 that ConsisID, OpenS2V and torchmetrics report instead of 2.5. Frames are RGB: ConsisID's
released code feeds OpenCV's BGR, which is another number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data_prep.records import F64, U8, InputError


@dataclass(frozen=True)
class Clip:
    """A CLIP of transformers, its picture processor and tokenizer."""

    model: Any
    processor: Any
    tokenizer: Any

    @torch.no_grad()
    def image_features(self, frames: U8) -> torch.Tensor:
        """Frames u8[n,H,W,3] RGB to embeddings f32[n,D], not normalised."""
        pixels = self.processor(list(frames), return_tensors="pt", input_data_format="channels_last")
        found = self.model.get_image_features(pixel_values=pixels["pixel_values"].to(place()))
        return _pooled(found).float().cpu()

    @torch.no_grad()
    def text_features(self, prompt: str) -> torch.Tensor:
        """f32[1,D] of the words that fit its context (77 tokens in the published ones); the rest is not read."""
        longest = int(self.model.config.text_config.max_position_embeddings)
        tokens = self.tokenizer([prompt], return_tensors="pt", truncation=True, max_length=longest)
        return _pooled(self.model.get_text_features(**tokens.to(place()))).float().cpu()


def load_clip(where: str) -> Clip:
    """A CLIP by a folder or hub id, such as openai/clip-vit-base-patch16; raises InputError where none loads."""
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        model = CLIPModel.from_pretrained(where).eval().to(place())
        return Clip(model, CLIPImageProcessorPil.from_pretrained(where), AutoTokenizer.from_pretrained(where))
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0][:200]
        raise InputError(
            f"CLIP {where!r}: {why}; give a folder of transformers' layout, or a hub's id where there is a network"
        ) from error


def clip_scores(images: torch.Tensor, text: torch.Tensor) -> F64:
    """f64[n]: the score of each of n image embeddings f32[n,D] against a text's f32[1,D], in 0..100."""
    cosine = torch.nn.functional.cosine_similarity(images.double(), text.double(), dim=-1)
    return np.asarray(100 * cosine.clamp(min=0).numpy(), np.float64)


def place() -> torch.device:
    """Where networks run: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _pooled(found: Any) -> torch.Tensor:
    """transformers 5 answers with an object that holds the projected embedding, earlier ones with the tensor."""
    pooled: torch.Tensor = found if isinstance(found, torch.Tensor) else found.pooler_output
    return pooled
