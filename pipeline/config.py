"""The knobs of training and generation, each declared once, with its default, unit and reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class TinyConfig:
    """The tiny family: a Wan transformer small enough for a CPU, on patch-PCA latents."""

    num_layers: int = 6  # blocks
    num_heads: int = 4  # of each attention
    head_dim: int = 48  # 4 heads x 48 = 192 wide; 3.3 M parameters with the feed-forward below
    ffn_dim: int = 512  # width of the feed-forward
    patch_px: int = 16  # one latent cell; 8 has 4 times the tokens and learned less in the same time
    # of 768; what is left of 28-px faces has a similarity of 0.6 to their references (measured on the demo's clips;
    # 48 channels: 0.2, 96: 0.5, 192: 0.8, all: 0.85; 0.4 is the same person)
    latent_channels: int = 128
    text_tokens: int = 64  # words of the prompt that are read
    text_dim: int = 128  # width of a word
    shift: float = 2.2  # flow shift, as in Li & He 2025 (arXiv 2511.13720) beside logit-normal levels


@dataclass(frozen=True)
class WanConfig:
    """The wan family: any Wan 2.1 or 2.2 in diffusers' layout."""

    pretrained: str = ""  # a folder, or a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers
    revision: str = ""  # of the hub id; empty: its main branch
    # which of two experts is trained (Wan 2.2 A14B: high noise or low noise); each run trains one
    expert: Literal["high", "low"] = "high"
    shift: float = 5.0  # flow shift in training and sampling; 3 for 480p, 5 for 720p (the authors' values)
    text_tokens: int = 512  # of the prompt that are read
    frozen_dtype: Literal["fp32", "bf16"] = "bf16"  # of the text encoder; the autoencoder is always fp32


@dataclass(frozen=True)
class CogVideoXConfig:
    """The cogvideox family: CogVideoX 1.0 and 1.5 in diffusers' layout."""

    pretrained: str = ""  # a folder, or a hub id such as zai-org/CogVideoX-5b
    revision: str = ""  # of the hub id; empty: its main branch
    text_tokens: int = 226  # of the prompt that are read; what it was trained with
    frozen_dtype: Literal["fp32", "bf16"] = "bf16"  # of the text encoder; the autoencoder is always fp32


@dataclass(frozen=True)
class FamilyConfig:
    """Which video transformer, by its name in pipeline.families."""

    name: str = "tiny"  # tiny, wan or cogvideox; only the section of that name is read
    tiny: TinyConfig = field(default_factory=TinyConfig)
    wan: WanConfig = field(default_factory=WanConfig)
    cogvideox: CogVideoXConfig = field(default_factory=CogVideoXConfig)


@dataclass(frozen=True)
class IdentityConfig:
    """Identity encoder, bank and attention."""

    embedding_dim: int = 512  # the recogniser's width
    tokens_per_character: int = 32  # learned queries that read its references (ConsisID: 32)
    width: int = 192  # of the tokens
    encoder_layers: int = 2  # from references to tokens
    # of the encoder, whose width it divides, and of identity attention, which takes more where one would be wider
    # than 128 (a published transformer is 1,536 to 5,120 wide)
    num_heads: int = 4
    max_cast: int = 8  # slots with an embedding of their own
    every: int = 1  # identity attention in every k-th block (ConsisID: 2 of 42)
    # how a visual token reads a cast. routed: the one character it is routed to; joint: all tokens of all
    # characters at once, told apart by their slots alone; pooled: one mean of all characters. The last two are what
    # routing is compared with (castbank proof)
    binding: Literal["routed", "joint", "pooled"] = "routed"
    # a picture of each character and its drawn landmarks beside the noisy latents too (ConsisID's low-frequency
    # path; without landmarks it found a likeness of 0.64, with them 0.73); features and bank then keep the pictures
    low_frequency: bool = False


@dataclass(frozen=True)
class NoiseConfig:
    """What is drawn per sample: noise level, dropped conditions, references and their noise."""

    distribution: Literal["uniform", "logit_normal"] = "logit_normal"  # of the noise level, before the shift
    text_drop: float = 0.1  # probability that the caption is dropped, for guidance (ConsisID)
    cast_drop: float = 0.1  # probability that the whole cast is dropped, for guidance
    cross_face: float = (
        0.5  # probability of outside references, else a face of the sample itself (ConsisID's beta)
    )
    reference_log_sigma_mean: float = -3.0  # reference noise sigma = exp(N(mean, std)) (ConsisID)
    reference_log_sigma_std: float = 0.5  # the same
    # probability that a sample's first latent frame is given clean and left out of the losses, so that a picture
    # can anchor a video; families with a noise level per frame only (FVG, arXiv 2512.16371: 0.5 keeps both)
    anchor: float = 0.0
    # what is then given, drawn evenly: first: that frame; history: it and more, all but one at most; ends: it and
    # the last; for strategies context and keyframes give all three
    given: tuple[str, ...] = ("first",)


@dataclass(frozen=True)
class LossConfig:
    """Weight of each loss; 0 leaves it out."""

    diffusion: float = 1.0  # mean squared error over the whole picture
    mask: float = 1.0  # the same over each character's region (ConsisID's dynamic mask loss)
    routing: float = 0.1  # cross-entropy of the router against the label map
    mask_probability: float = 0.5  # share of samples that the mask loss takes (ConsisID's alpha)
    # recognisability of the faces in the decoded estimate; a little goes far (0.05), and training with it reads no
    # cached latents
    identity: float = 0.0
    identity_below: float = (
        0.4  # noise level under which it is taken: above, an estimate shows nobody (measured)
    )
    identity_drift: float = 0.1  # weight of faces that change from frame to frame
    identity_frames: int = 9  # first frames that are decoded for it, at most
    identity_min_face_px: int = 24  # shorter side of a face that it looks at


@dataclass(frozen=True)
class ScheduleConfig:
    """Coarse to fine: first the low-frequency path alone, then identity attention too (ConsisID: 0.54 without)."""

    coarse: float = 0.0  # share of the steps, from the first, in which identity attention adds nothing
    fade_in: float = 0.0  # share of the steps over which it then comes in, linearly; 0: at once
    # those whose weight comes in with it, of [mask,routing,identity]; the identity loss waits for it in any case
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class AdapterConfig:
    """Which parameters are trained, and how fast."""

    kind: Literal["full", "lora", "none"] = (
        "full"  # of the transformer; none: it is frozen, identity alone is trained
    )
    learning_rate: float = (
        1.5e-3  # of the transformer or its LoRA; a pretrained one wants 3e-6 full, 1e-4 LoRA
    )
    identity_learning_rate: float = 1.5e-3  # of encoder, slots and identity attention
    train_identity: bool = True  # encoder, slots and identity attention
    # names in the base's bank whose tokens stay bit for bit, whatever is trained; who is locked there stays so
    lock: tuple[str, ...] = ()
    rank: int = 16  # of the LoRA
    alpha: float = 16.0  # the LoRA is scaled by alpha / rank
    targets: tuple[str, ...] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
    )  # linear layers that a LoRA is put on, by the end of their names; these: all projections of attentions


@dataclass(frozen=True)
class ModelConfig:
    """All that decides what the model is and what it is asked to learn."""

    family: FamilyConfig = field(default_factory=FamilyConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)


@dataclass(frozen=True)
class StrategyConfig:
    """How the cast is kept the same; what each name does is in pipeline/strategies/names.py."""

    # bank, lock, two-paths, tracked, context, keyframes, anchored, or several with + between: anchored+context+bank
    name: str = "bank"
    window: int = 0  # context, keyframes: frames that are drawn at once, as trained; 0: num_frames
    # context: frames of what is there that each window begins with, 1 + a multiple of the family's grouping; 0: as
    # many as half a window holds
    history: int = 0
    keyframes: int = 0  # keyframes: how many, first and last frame among them; 0: as few as windows allow
    # tracked: what other tokens' scores lose where a face's token reads; inf: it reads its own face only; 0: off
    bias: float = 2.0
    look_steps: int = 8  # tracked: steps of the first look at where the faces are, where no layout says so
    face_pack: str = "embedded"  # tracked: face pack that looks
    rewriter: Literal["rules", "transformers", "endpoint"] = (
        "rules"  # anchored: who turns prompt into first frame
    )
    # anchored: hub id or folder of a text model, or an endpoint's name for one (FVG: this one)
    rewriter_model: str = "Qwen/Qwen2.5-7B-Instruct"
    rewriter_url: str = ""  # anchored: of an OpenAI-compatible endpoint, up to and with /v1
    rewriter_key: str = ""  # anchored: env:NAME of the variable that holds the endpoint's key; empty: none
    # anchored: who draws the first frame; collage puts the cast's pictures side by side
    painter: Literal["collage", "diffusers"] = "collage"
    painter_model: str = (
        "Qwen/Qwen-Image"  # anchored: hub id or folder of a text-to-image pipeline (FVG: this one)
    )
    painter_steps: int = 50  # anchored: of that pipeline
    background: str = ""  # anchored: picture file behind a collage; empty: plain grey


@dataclass(frozen=True)
class GenerateConfig:
    """How a video is sampled; what it shows (prompt, cast, layout) is asked for beside this."""

    num_frames: int = 5  # as trained, where the run says; so for the size and fps
    height_px: int = 96  # a multiple of the family's cells, as said where it is not
    width_px: int = 160
    fps: float = 8.0  # of the file that is written
    steps: int = 30  # of the Euler sampler
    # of identity attention and, where the model reads them, pictures; 0.7..0.85 is the useful band of large models
    strength: float = 1.0
    guidance: float = 1.0  # towards prompt and cast, away from neither; 1 is off, and costs half
    seed: int = 0  # of the first noise
    strategy: StrategyConfig = field(default_factory=StrategyConfig)


@dataclass(frozen=True)
class DataConfig:
    """Which samples are trained on, and what is taken of each."""

    shards: str = "???"  # folder that castbank prepare wrote
    num_frames: int = 5  # of the sample's; the causal VAEs want 1 + 4k
    frame_stride: int = 4  # between them; 5 frames at 4 span a sample of 17; a longer one gives its middle
    include_characters: tuple[str, ...] = ()  # ids; a sample stays if it shows one of them; empty: all stay
    exclude_characters: tuple[str, ...] = ()  # ids; a sample that shows one of them is left out
    held_out: float = 0.0  # share of the samples, by whole sources, that is kept from training for validation
    overfit: int = 0  # only the first so many samples, over and over in one order, and no export; 0: all
    pack: str = "embedded"  # face pack whose recogniser the identity encoder reads
    # windows of each sample, drawn from (seed, key, k); epoch e shows number e mod this; 1: the middle
    windows_per_sample: int = 1
    # probability that a window is mirrored, for ever (its own faces too); never where its caption says left/right
    flip: float = 0.0
    # FRAMESxHEIGHTxWIDTH (pixels), such as [41x480x832,1x720x1280]: each sample is cropped and resized to the one
    # that keeps most of it, and each batch is of one; empty: all are num_frames of the shards' own size
    buckets: tuple[str, ...] = ()
    max_upscale: float = 1.0  # a sample is enlarged at most this much, else it fits no bucket and is left out
    # batches of smaller buckets hold multiples of batch_size, up to the tokens of the largest ones'
    equal_tokens: bool = False
    # whether latents and texts of castbank cache are read: auto: where all are there; require: else training fails
    cache: Literal["auto", "require", "off"] = "auto"
    # of cached latents; bf16 halves their size and moves each value by at most 0.4 %; fp32 changes nothing
    latents_dtype: Literal["fp32", "bf16"] = "fp32"
    features: str = (
        ""  # folder of what castbank cache and training keep; empty: SHARDS.features, beside the shards
    )
    min_own_face_px: int = 16  # shorter side of a face cropped from the sample's own frames
    num_workers: int = 1  # background loading processes per rank; 0 loads in the rank itself
    prefetch: int = 2  # batches ready ahead


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW; the learning rates themselves belong to what is trained (model.adapter)."""

    betas: tuple[float, float] = (0.9, 0.95)  # ConsisID's
    eps: float = 1e-8  # added to the root of the second moment
    weight_decay: float = 0.01  # of all that is trained
    warmup_steps: int = 10  # updates over which the rates rise from 0
    schedule: Literal["constant", "cosine"] = "cosine"  # of the rates after that
    final_scale: float = 0.1  # of the learning rate at the last step of the cosine


@dataclass(frozen=True)
class EmaConfig:
    """An average of the trained weights over the last updates, which is what is exported and validated."""

    decay: float = 0.0  # per update, such as 0.9999; 0 is off
    warmup: bool = True  # decay is (1 + n) / (10 + n) after n updates until that is more
    every: int = 1  # updates between two looks at the weights; the decay is adapted


@dataclass(frozen=True)
class EngineConfig:
    """DeepSpeed."""

    num_processes: int = 2  # on this machine; ignored where a launcher has set the ranks
    # what the ranks share instead of each holding all: 1 optimizer, 2 and gradients, 3 and weights; 0 nothing
    zero_stage: Literal[0, 1, 2, 3] = 2
    dtype: Literal["fp32", "bf16"] = "fp32"  # of weights and products; the optimizer always has fp32
    # how the blocks' linear layers are kept, frozen under a LoRA: as dtype says, or by torchao in int8 (0.8 % off)
    # or nf4 (QLoRA's 4 bits, 9 % off); stages 0 to 2; the export's LoRA is for the base as it is published
    base_precision: Literal["dtype", "int8", "nf4"] = "dtype"
    accumulation: int = 1  # forward passes per update
    gradient_clipping: float = 1.0  # L2 norm; 0 is off
    activation_checkpointing: bool = (
        False  # blocks are run again in backward: a third more compute, less memory
    )
    offload_optimizer: Literal["none", "cpu", "nvme"] = "none"  # where its state is kept; nvme: stage 3 only
    offload_parameters: Literal["none", "cpu", "nvme"] = "none"  # stage 3 only
    offload_folder: str = ""  # for nvme: on a fast local disk, the same path on every host
    deepspeed: dict[str, Any] = field(
        default_factory=dict
    )  # more of DeepSpeed's own keys; not those of a knob here
    timeout_s: float = 600.0  # a peer silent for longer ends the run
    join_timeout_s: float = 300.0  # all ranks must have come; nodes of one job may boot minutes apart


@dataclass(frozen=True)
class CheckpointConfig:
    """What survives a crash."""

    every_steps: int = 50  # updates; also at the end and when asked to stop
    keep_last: int = 2  # checkpoints
    keep_best: int = 0  # so many more, those of the best best_of
    best_of: str = ""  # the scalar to judge by, as it was last logged, such as loss
    best_is: Literal["least", "greatest"] = "least"  # a loss or a share of hits
    background: bool = True  # written while training goes on, from a copy of each rank's share in host memory


@dataclass(frozen=True)
class StabilityConfig:
    """What is done about batches that would spoil the weights."""

    # of a loss or gradient that is infinite or NaN: end the run, or leave the update out and go on; either way the
    # samples are kept in RUN/nonfinite.jsonl
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: int = 3  # updates left out in a row; one more ends the run
    # robust z-score of the loss from which it is a spike, reported with its samples in RUN/spikes.jsonl; 0 is off
    spike_score: float = 8.0
    spike_window: int = 100  # losses that it is compared with


@dataclass(frozen=True)
class ValidationConfig:
    """The loss of samples that are not trained on (data.held_out), always at the same noise levels. They are
    encoded once per start, so that codec and text encoder are loaded also where training reads a cache."""

    every_steps: int = 0  # updates between two looks; 0 is off
    num_samples: int = 16  # of those held out, spread over them
    levels: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)  # in (0, 1], each for every sample


@dataclass(frozen=True)
class TrackingConfig:
    """Where losses, parameters and pictures are seen."""

    kind: Literal["mlflow", "none"] = "mlflow"  # none: metrics.jsonl alone
    uri: str = ""  # any MLflow tracking URI; empty: mlflow.db beside the run's folder
    experiment: str = "castbank"  # of MLflow; made where it is not there
    # name under which the export is uploaded and registered as a new version; empty: it stays in the run's folder
    registered_model: str = ""
    num_characters: int = 12  # the most frequent ones, with an error curve of their own
    flush_s: float = 2.0  # between sends; everything is on disk at once and sent in batches
    num_samples: int = 2  # videos generated at the end, beside the clips whose cast and caption they share
    sample_every: int = 0  # updates between such videos while training goes on; 0: only at the end
    max_wait_s: float = 60.0  # at the end, for a server that does not answer; the rest stays on disk
    max_wait_stopped_s: float = (
        10.0  # the same on a stop: schedulers kill after 30 s; the next start sends it
    )


@dataclass(frozen=True)
class TrainConfig:
    """castbank train: shards in, a trained identity bank out."""

    run: str = "???"  # the run's folder; an existing one of the same configuration is resumed
    base: str = ""  # export folder of an earlier run to start from; empty: random weights
    seed: int = 0  # of everything random: order, noise, new weights
    num_steps: int = 200  # updates
    batch_size: int = 4  # samples per update over all ranks and accumulated passes
    names: dict[str, str] = field(default_factory=dict)  # character id to its name in the bank; else the id
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    stability: StabilityConfig = field(default_factory=StabilityConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
