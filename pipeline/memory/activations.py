"""What a forward pass leaves for backward, block by block: bytes that autograd saves, one line per saved tensor.

Attention saves queries, keys, values, its output and one fp32 number per head and query, never the scores (Dao
2023, arXiv 2307.08691; PyTorch's other kernels alike). A linear layer saves its input where its own weight or a
LoRA on it is trained; a product saves a factor where the other one is trained.

With checkpointing a block leaves only its inputs; backward then runs one block again, so that what is inside is
there for one block at a time (Chen et al. 2016, arXiv 1604.06174).

bf16 weights run under autocast: on CUDA, LayerNorm and softmax give fp32 there, on a CPU bf16; RMSNorm is one
kernel that saves its bf16 input on CUDA, and on a CPU a product whose fp32 factors are saved. Tests count on CPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.config import IdentityConfig
from pipeline.memory.weights import Architecture, matches

WIDE = 4  # bytes of what is kept in fp32 whatever the weights are


@dataclass(frozen=True)
class Numbers:
    """compute: bytes in matrix products; norm: of what LayerNorm and softmax take and give; fused_rms: whether
    RMSNorm saves its input as it is."""

    compute: int
    norm: int
    fused_rms: bool


def numbers(dtype: Literal["fp32", "bf16"], device: Literal["cuda", "cpu"]) -> Numbers:
    """Of the engine's precision on that kind of device."""
    if dtype == "fp32":
        return Numbers(4, 4, device == "cuda")
    return Numbers(2, 4 if device == "cuda" else 2, device == "cuda")


@dataclass(frozen=True)
class Tokens:
    """Tokens of one forward pass. batch: samples; visual, text, image: tokens of each; per_token_timesteps: whether
    every token has its own modulation; cast: characters of each sample, empty slots included."""

    batch: int
    visual: int
    text: int
    image: int = 0
    per_token_timesteps: bool = False
    cast: int = 2


@dataclass(frozen=True)
class Trained:
    """What is trained of the transformer. full: everything; adapted: names that a LoRA of ``rank`` covers;
    every_input: ZeRO-3's own linear layer (deepspeed.runtime.zero.linear) saves its input though it is frozen."""

    full: bool
    adapted: tuple[str, ...] = ()
    rank: int = 0
    every_input: bool = False

    def learns(self, layer: str) -> bool:
        """Whether this linear layer, or a LoRA on it, is trained."""
        return self.full or matches(layer, self.adapted)

    def reads(self, layer: str) -> bool:
        """Whether the input of this linear layer is saved."""
        return self.every_input or self.learns(layer)

    def grown(self, layers: tuple[str, ...]) -> int:
        """Numbers per token that the LoRAs on these layers save between A and B."""
        return self.rank * sum(matches(layer, self.adapted) for layer in layers) if not self.full else 0


@dataclass(frozen=True)
class Activations:
    """Bytes. inputs: of one block; inside: what one block saves; identity: what one identity attention saves;
    ends: before the first and after the last block; gradients: in flight in one block's backward."""

    inputs: int
    inside: int
    identity: int
    ends: int
    gradients: int

    def saved(self, layers: int, sites: int, checkpointed: bool) -> tuple[int, int]:
        """Held from forward to backward, and there during one block's backward beside it."""
        every = (self.inside * layers + self.identity * sites) / max(1, layers)
        if checkpointed:
            return self.inputs * layers + self.ends, int(every) + self.gradients
        return int(every * layers) + self.ends, self.gradients


def activations(
    arch: Architecture, tokens: Tokens, trained: Trained, number: Numbers, identity: IdentityConfig | None
) -> Activations:
    """What a forward pass over ``tokens`` leaves."""
    parts, ends = (_wan, _wan_ends) if arch.kind == "wan" else (_cogvideox, _cogvideox_ends)
    inputs = tokens.visual + (tokens.text if arch.kind == "cogvideox" else 0)
    own = sum(identity_attention(arch, tokens, number, identity).values()) if identity else 0
    widest = tokens.visual * (number.compute * arch.ffn + 2 * WIDE * arch.width)
    return Activations(
        inputs=tokens.batch * number.compute * inputs * arch.width,
        inside=tokens.batch * sum(parts(arch, tokens, trained, number).values()),
        identity=tokens.batch * own,
        ends=tokens.batch * sum(ends(arch, tokens, trained, number).values()),
        gradients=tokens.batch * widest,
    )


def _rms(count: int, trained: Trained, number: Numbers) -> int:
    """An RMSNorm over ``count`` numbers: its input, and beside it the normalised one for the weight's gradient."""
    if number.fused_rms:
        return number.compute * count
    return WIDE * count * (2 if trained.full else 1)


def _wan(arch: Architecture, tokens: Tokens, trained: Trained, number: Numbers) -> Mapping[str, int]:
    """A block of WanTransformer3DModel; its LayerNorms, modulation and residual sums are fp32 by its own code."""
    n, s, i, c = tokens.visual, tokens.text, tokens.image, number.compute
    nd, full = n * arch.width, int(trained.full)
    self_reads = any(trained.reads(f"blocks.attn1.{p}") for p in ("to_q", "to_k", "to_v"))
    visual = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0")
    lse = WIDE * n * arch.heads
    return {
        "norm1: input in fp32, mean and 1/deviation": WIDE * nd + 2 * WIDE * n,
        "norm1: output, for the scale's gradient": full * WIDE * nd,
        "modulation: six in fp32 and 1 + scale twice, of the sample or of each token": WIDE
        * 8
        * (nd if tokens.per_token_timesteps else arch.width),
        "attn1: input of q, k, v": c * nd * self_reads,
        "attn1: RMSNorm of q and k": 2 * (_rms(nd, trained, number) + WIDE * n),
        "attn1: q, k, v, output": 4 * c * nd + lse,
        "attn1: projected output, for the gate's gradient": full * c * nd,
        "norm2: input in fp32": WIDE * nd + 2 * WIDE * n,
        "attn2: input of q": c * nd * trained.reads("blocks.attn2.to_q"),
        "attn2: RMSNorm of q": _rms(nd, trained, number) + WIDE * n,
        "attn2: q, output": 2 * c * nd + lse,
        "attn2: keys and values of the text": _rms(s * arch.width, trained, number)
        * trained.learns("blocks.attn2.to_k")
        + 2 * c * s * arch.width,
        "attn2: keys and values of the image": (i > 0)
        * (full * _rms(i * arch.width, trained, number) + 2 * c * i * arch.width),
        "attn2: the image's output, and the sum": (i > 0)
        * (c * nd * (1 + trained.reads("blocks.attn2.to_out.0")) + lse),
        "norm3: input in fp32": WIDE * nd + 2 * WIDE * n,
        "norm3: output, for the scale's gradient": full * WIDE * nd,
        "ffn: input": c * nd * trained.reads("blocks.ffn.net.0.proj"),
        "ffn: before GELU": c * n * arch.ffn,
        "ffn: after GELU": c * n * arch.ffn * trained.reads("blocks.ffn.net.2"),
        "ffn: output in fp32, for the gate's gradient": full * WIDE * nd,
        "LoRA: between A and B": c
        * (
            n * trained.grown(tuple(f"blocks.{name}" for name in visual))
            + s * trained.grown(("blocks.attn2.to_k", "blocks.attn2.to_v"))
            + n * trained.grown(("blocks.ffn.net.0.proj", "blocks.ffn.net.2"))
        ),
    }


def _cogvideox(arch: Architecture, tokens: Tokens, trained: Trained, number: Numbers) -> Mapping[str, int]:
    """A block of CogVideoXTransformer3DModel: text and video are one sequence in attention and feed-forward."""
    t, c, wide = tokens.visual + tokens.text, number.compute, number.norm
    td, full, on_cuda = t * arch.width, int(trained.full), number.fused_rms
    block, projections = "transformer_blocks", ("to_q", "to_k", "to_v")
    reads = sum(trained.reads(f"{block}.attn1.{p}") for p in projections)
    grown = trained.grown(tuple(f"{block}.attn1.{p}" for p in (*projections, "to_out.0")))
    grown += trained.grown((f"{block}.ff.net.0.proj", f"{block}.ff.net.2"))
    return {
        "norm1: input, mean and 1/deviation": wide * td + 2 * wide * t,
        "norm1: output, for the scale's gradient": full * wide * td,
        "attn1: input of q, k, v, a cast copy for each": c * td * (reads if wide > c else reads > 0),
        "attn1: LayerNorm of q and k per head": 2 * (wide * td + 2 * wide * t * arch.heads),
        "attn1: q, k, v, output": 4 * c * td + WIDE * t * arch.heads,
        "attn1: output in another order": c * td * trained.reads(f"{block}.attn1.to_out.0") * (not on_cuda),
        "attn1: projected output, for the gate's gradient": full * c * td,
        "modulation of both norms": 16 * c * arch.width,
        "norm2: input": wide * td + 2 * wide * t,
        "norm2: output, for the scale's gradient": full * wide * td,
        "ff: input": c * td * trained.reads(f"{block}.ff.net.0.proj"),
        "ff: before GELU": c * t * arch.ffn,
        "ff: after GELU": c * t * arch.ffn * trained.reads(f"{block}.ff.net.2"),
        "ff: output, for the gate's gradient": full * c * td,
        "LoRA: between A and B": c * t * grown,
    }


def identity_attention(
    arch: Architecture, tokens: Tokens, number: Numbers, config: IdentityConfig
) -> Mapping[str, int]:
    """One identity attention over N characters of K tokens and a separator each; its scores are saved."""
    c, wide, n = number.compute, number.norm, tokens.visual
    nd, each = n * arch.width, config.tokens_per_character + 1
    scores = config.num_heads * n * tokens.cast * each
    return {
        "norm: input, mean and 1/deviation": wide * nd + 2 * wide * n,
        "input of q and of the router, a cast copy for each": c * nd * (2 if wide > c else 1),
        "q, the router's q, what was read": 3 * c * nd,
        "keys and values": 2 * c * tokens.cast * each * arch.width,
        "attention weights before and after routing": (wide + c) * scores,
        "route": 2 * wide * n * (tokens.cast + 1),
    }


def _wan_ends(arch: Architecture, tokens: Tokens, trained: Trained, number: Numbers) -> Mapping[str, int]:
    n, s, c, full = tokens.visual, tokens.text, number.compute, int(trained.full)
    cells = arch.patch[0] * arch.patch[1] * arch.patch[2]
    nd, sd, head = n * arch.width, s * arch.width, arch.width // arch.heads
    return {
        "patches": full * c * n * arch.in_channels * cells,
        "text: input, before and after GELU": full * c * (s * arch.text_width + 2 * sd),
        "text: what every block reads": c * sd,
        "positions": 2 * WIDE * n * head,
        "timesteps of every token": tokens.per_token_timesteps * c * nd * (6 + full * 4),
        "last norm: input in fp32": WIDE * nd,
        "last norm: output, for the scale's gradient": full * WIDE * nd,
        "projection: input": c * nd * trained.reads("proj_out"),
        "prediction, target": 2 * WIDE * n * arch.out_channels * cells,
    }


def _cogvideox_ends(
    arch: Architecture, tokens: Tokens, trained: Trained, number: Numbers
) -> Mapping[str, int]:
    n, s, c, wide, full = tokens.visual, tokens.text, number.compute, number.norm, int(trained.full)
    cells = arch.patch[0] * arch.patch[1] * arch.patch[2]
    nd, head = n * arch.width, arch.width // arch.heads
    return {
        "patches": full * c * n * arch.in_channels * cells,
        "text: input": full * c * s * arch.text_width,
        "positions": 2 * WIDE * n * head,
        "last norms: inputs": 2 * wide * nd,
        "last norm: output, for the scale's gradient": full * wide * nd,
        "projection: input": c * nd * trained.reads("proj_out"),
        "prediction, target": 2 * WIDE * n * arch.out_channels * cells,
    }
