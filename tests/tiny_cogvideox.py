"""CogVideoX of every kind with random weights, a few thousand, saved by the real pipelines in the real layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

TEXT_TOKENS, FRAMES, HEIGHT, WIDTH = 12, 9, 32, 48  # 3 latent frames of 4 x 6 cells, 2 x 3 tokens
SENTENCES = [
    "anna talks to ben",
    "the dog runs over green hills",
    "discs drift",
    "<person-1> is c01 and <person-2> c02",
]


@dataclass(frozen=True)
class Kind:
    """What makes one published model differ from another."""

    transformer: dict[str, Any]
    snr_shift: float = 1.0
    image: bool = False


KINDS = {
    "2b": Kind({"use_rotary_positional_embeddings": False}, snr_shift=3.0),
    "5b": Kind({}),
    "1.5": Kind({"patch_size_t": 2, "patch_bias": False}),
    "5b-i2v": Kind(
        {
            "in_channels": 8,
            "use_learned_positional_embeddings": True,
            "sample_width": WIDTH // 8,
            "sample_height": HEIGHT // 8,
            "sample_frames": FRAMES,
        },
        image=True,
    ),
    "1.5-i2v": Kind(
        {"in_channels": 8, "patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 16}, image=True
    ),
}


def make_model(folder: Path, name: str) -> Path:
    """A whole model of that kind."""
    import diffusers
    from transformers import T5Config, T5EncoderModel

    kind = KINDS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        tokenizer = make_tokenizer(folder.with_name(f"{folder.name}-vocabulary"))
        config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        pipeline = (diffusers.CogVideoXImageToVideoPipeline if kind.image else diffusers.CogVideoXPipeline)(
            tokenizer=tokenizer,
            text_encoder=T5EncoderModel(config),
            vae=make_codec(inverted=name == "1.5-i2v"),
            transformer=make_transformer(**kind.transformer),
            scheduler=diffusers.CogVideoXDDIMScheduler(
                prediction_type="v_prediction",
                timestep_spacing="trailing",
                rescale_betas_zero_snr=True,
                clip_sample=False,
                snr_shift_scale=kind.snr_shift,
            ),
        )
    pipeline.save_pretrained(folder)
    return folder


def make_codec(inverted: bool) -> Any:
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        scaling_factor=0.7,
        invert_scale_latents=inverted,
    )


def make_transformer(**more: Any) -> Any:
    from diffusers import CogVideoXTransformer3DModel

    asked = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": 16,
        "num_layers": 2,
        "sample_width": 10,
        "sample_height": 8,
        "sample_frames": 17,
        "max_text_seq_length": TEXT_TOKENS,
        "use_rotary_positional_embeddings": True,
    }
    return CogVideoXTransformer3DModel(**{**asked, **more})


def make_tokenizer(folder: Path) -> Any:
    """A T5 tokenizer from a folder as it is published: a sentencepiece model and no tokenizer.json."""
    import io
    import json

    import sentencepiece
    from transformers import T5Tokenizer

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 50),
        model_writer=written,
        vocab_size=64,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(written.getvalue())
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": TEXT_TOKENS}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return T5Tokenizer.from_pretrained(folder)
