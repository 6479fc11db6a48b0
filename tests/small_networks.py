"""Feature networks too small to know anything, saved as the published ones are: a CLIP and a VideoMAE in the layout
of transformers, an image and a video network in TorchScript."""

from __future__ import annotations

import json
from pathlib import Path

import torch

CLIP_WIDTH, IMAGE_WIDTH, VIDEO_WIDTH = 16, 6, 5


class Images(torch.nn.Module):
    """u8[n,3,H,W] to features, as NVIDIA's Inception is asked: ``return_features=True``, else logits."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, IMAGE_WIDTH, 3, stride=2)

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        features = self.layer(img.float() / 255).relu().mean([2, 3])
        return features if return_features else features.sum(1, keepdim=True)


class Videos(torch.nn.Module):
    """f32[n,3,T,H,W] in 0..255 to features, as StyleGAN-V's I3D is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(3, VIDEO_WIDTH, 3, stride=2)

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        if rescale:
            x = x / 127.5 - 1
        features = self.layer(x).relu().mean([2, 3, 4])
        return features if return_features else features.sum(1, keepdim=True)


def save_scripted(folder: Path) -> tuple[Path, Path]:
    """The files of the image and the video network."""
    torch.manual_seed(0)
    paths = folder / "images.pt", folder / "videos.pt"
    for network, path in zip((Images(), Videos()), paths, strict=True):
        torch.jit.script(network).save(str(path))
    return paths


def save_clip(folder: Path) -> Path:
    """A random CLIP of 32-pixel pictures with a vocabulary of letters."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    text = small | {"vocab_size": len(words), "max_position_embeddings": 20, "bos_token_id": 52}
    config = CLIPConfig(
        text_config=text | {"eos_token_id": 53, "pad_token_id": 53},
        vision_config=small | {"image_size": 32, "patch_size": 8},
        projection_dim=CLIP_WIDTH,
    )
    model = CLIPModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    (folder / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 20})
    )
    return folder


def save_videomae(folder: Path, num_frames: int) -> Path:
    """A random VideoMAE of 32-pixel windows."""
    from transformers import VideoMAEConfig, VideoMAEModel
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=num_frames,
        tubelet_size=2,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    VideoMAEModel(config).save_pretrained(folder)
    VideoMAEImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder
