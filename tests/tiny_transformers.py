"""Shapes of real transformers, as small as they can be: what tests of export share."""

from __future__ import annotations

from typing import Any

WAN_T2V: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}
WAN_I2V = WAN_T2V | {"in_channels": 36, "image_dim": 20, "added_kv_proj_dim": 24}
WAN_FLF2V = WAN_I2V | {"pos_embed_seq_len": 4}
COGVIDEOX_5B: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 2,
    "text_embed_dim": 32,
    "num_layers": 2,
    "sample_width": 2,
    "sample_height": 2,
    "sample_frames": 9,
    "patch_size": 2,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 16,
    "use_rotary_positional_embeddings": True,
}
COGVIDEOX_5B_I2V = COGVIDEOX_5B | {"in_channels": 8, "use_learned_positional_embeddings": True}
COGVIDEOX_15_I2V = COGVIDEOX_5B | {"in_channels": 8, "ofs_embed_dim": 8, "patch_size_t": 2}
