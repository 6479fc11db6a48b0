"""``castbank plan``: what a training needs on each GPU, from shapes alone, before anything is rented or loaded."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import config as configs
from jobs import knobs
from pipeline.config import TinyConfig, TrainConfig

if TYPE_CHECKING:
    from pipeline.families.published import Codec
    from pipeline.memory.operations import Expected
    from pipeline.memory.plan import Plan, Suggestion, Training
    from pipeline.memory.weights import Architecture

SUMMARY = """Plan the memory of castbank train on each GPU: weights, gradients, optimizer, activations, buffers;
when most is held; which cards that fits, and the fewest GPUs and the lowest ZeRO stage that would fit each. Of a
configuration also what it costs: operations of all its steps, counted from shapes, and GPU-hours at a share of the
cards' peak, which is assumed (--utilisation).

It takes the configuration of castbank train (run= and data.shards= are not needed) and plans the model that it
names. --model names another: a published one (--model list shows all), or a transformer's folder. Frames, size and
samples per GPU are the configuration's if one is given, else the model's own and 1."""

EXAMPLE = "castbank plan --config jobs/configs/train_wan2.1_t2v_14b.yaml --gpus 8"
TINY_SIZE = (96, 160)  # of the demo's samples


@dataclass(frozen=True)
class Subject:
    """What is planned: a name for it, its architecture and codec, and the sizes it has by default."""

    name: str
    arch: Architecture
    codec: Codec
    text_tokens: int
    image_tokens: int
    per_token_timesteps: bool
    size: tuple[int, int, int]  # frames, height, width
    resident: int  # bytes of codec (fp32) and text encoder (bf16)
    experts: int


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument(
        "--model", default="", metavar="NAME", help="published model or folder; list: all names"
    )
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="ranks of the training")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="source frames of a sample")
    parser.add_argument("--height", type=int, default=0, metavar="PX", help="of the video")
    parser.add_argument("--width", type=int, default=0, metavar="PX", help="of the video")
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="per GPU and forward pass")
    parser.add_argument("--cast", type=int, default=2, metavar="N", help="characters of a sample (default 2)")
    parser.add_argument(
        "--uncached", action="store_true", help="codec and text encoder stay on the GPU beside training"
    )
    parser.add_argument("--both-experts", action="store_true", help="of Wan 2.2 A14B in one run, not one")
    parser.add_argument(
        "--utilisation",
        type=float,
        default=0.35,
        metavar="SHARE",
        help="of a GPU's peak, for hours (default 0.35)",
    )
    parser.add_argument("--json", action="store_true", help="the plan as JSON, in bytes")
    knobs.add_arguments(parser, TrainConfig, EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """Print the plan; 0."""
    if args.model == "list":
        sys.stdout.write(_list())
        return 0
    from jobs.train_checks import ALLOWED, check_base_precision
    from pipeline.memory.plan import plan, suggestions

    config = configs.load(TrainConfig, args.config, ["run=none", "data.shards=none", *args.overrides])
    configs.check_ranges(config, ALLOWED)
    check_base_precision(config)
    subject = _subject(args.model or _pretrained(config), config)
    training = _training(args, config, subject)
    made, others = plan(training), list(suggestions(training))
    cost = _cost(args, config, training)
    sys.stdout.write(_json(subject, made, others, cost) if args.json else _table(subject, made, others))
    if cost is not None and not args.json:
        sys.stdout.write(_cost_line(cost, config, args))
    return 0


def _cost(args: argparse.Namespace, config: TrainConfig, training: Training) -> Expected | None:
    """What the configuration's steps take in all; None where no configuration says how many."""
    from data_prep.records import InputError
    from pipeline.memory.operations import expected

    if not 0 < args.utilisation <= 1:
        raise InputError(f"--utilisation {args.utilisation:g}: a share of a GPU's peak, above 0 and up to 1")
    if not _given(args, "num_steps"):
        return None
    return expected(training, config.num_steps, config.batch_size, args.utilisation)


def _cost_line(cost: Expected, config: TrainConfig, args: argparse.Namespace) -> str:
    hours = ", ".join(
        f"{spent:,.0f} {card}-hours ({spent / args.gpus:,.1f} h on {args.gpus})"
        for card, spent in cost.gpu_hours.items()
    )
    return (
        f"\n{config.num_steps} steps of {config.batch_size} samples, {cost.step / 1e12:,.0f} TFLOP a sample: "
        f"{cost.total / 1e18:,.1f} EFLOP\n  at {args.utilisation:.0%} of the peak: {hours}\n"
    )


def _list() -> str:
    from pipeline.families.published import MODELS

    rows = (
        f"{name:22} {m.num_parameters / 1e9:5.2f} B  {m.num_frames} frames {m.height_px} x {m.width_px}  {m.hub}"
        for name, m in MODELS.items()
    )
    return "\n".join(rows) + "\n"


def _pretrained(config: TrainConfig) -> str:
    """The published model or folder that the configuration trains; empty for the tiny family."""
    from data_prep.records import InputError

    family = config.model.family
    if family.name == "tiny":
        return ""
    pretrained = str(getattr(getattr(family, family.name, None), "pretrained", ""))
    if not pretrained:
        raise InputError(
            f"model.family.{family.name}.pretrained is empty; give a folder or a hub id, or --model NAME"
        )
    return pretrained


def _subject(name: str, config: TrainConfig) -> Subject:
    """The published model, the transformer of a folder, or the configuration's tiny family."""
    from pipeline.families.published import published
    from pipeline.memory.weights import architecture

    if not name:
        return _tiny(config.model.family.tiny)
    if Path(name).is_dir():
        return _of_folder(Path(name))
    model = published(name)
    return Subject(
        name=name,
        arch=architecture(model.class_name, model.transformer),
        codec=model.codec,
        text_tokens=model.text.tokens,
        image_tokens=model.image_tokens,
        per_token_timesteps=model.per_token_timesteps,
        size=(model.num_frames, model.height_px, model.width_px),
        resident=4 * model.codec.num_parameters + 2 * model.text.num_parameters,
        experts=model.experts,
    )


def _tiny(tiny: TinyConfig) -> Subject:
    """The tiny family: a Wan transformer on patch-PCA latents, as pipeline.families.tiny builds it."""
    from pipeline.families.published import Codec
    from pipeline.memory.weights import architecture

    arguments = {
        "patch_size": (1, 1, 1),
        "num_attention_heads": tiny.num_heads,
        "attention_head_dim": tiny.head_dim,
        "in_channels": tiny.latent_channels + 8,
        "out_channels": tiny.latent_channels,
        "text_dim": tiny.text_dim,
        "freq_dim": 64,
        "ffn_dim": tiny.ffn_dim,
        "num_layers": tiny.num_layers,
    }
    codec = Codec("PatchPCA", 1, tiny.patch_px, tiny.latent_channels, 0)
    arch = architecture("WanTransformer3DModel", arguments)
    return Subject("tiny", arch, codec, tiny.text_tokens, 0, False, (5, *TINY_SIZE), 0, 1)


def _of_folder(folder: Path) -> Subject:
    """A transformer that ``save_pretrained`` wrote, or the export that holds one; all else is its family's."""
    from data_prep.records import InputError
    from pipeline.families.published import MODELS
    from pipeline.memory.weights import architecture

    path = next(
        (p for p in (folder / "transformer/config.json", folder / "config.json") if p.is_file()), None
    )
    if path is None:
        raise InputError(f"--model {str(folder)!r}: no transformer/config.json and no config.json there")
    try:
        arguments = json.loads(path.read_text(encoding="utf-8"))
        arch = architecture(arguments.get("_class_name", ""), arguments)
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not the configuration of a transformer: {error}") from error
    like = {"wan": "wan2.1-t2v-14b", "cogvideox": "cogvideox-5b"}[arch.kind]
    near = _subject("wan2.2-ti2v-5b" if arch.out_channels == 48 else like, TrainConfig())
    image_tokens = MODELS["wan2.1-i2v-14b-480p"].image_tokens if arch.image_width else 0
    return replace(near, name=str(folder), arch=arch, image_tokens=image_tokens)


def _training(args: argparse.Namespace, config: TrainConfig, subject: Subject) -> Training:
    """What is to be planned; raises InputError where the sizes do not fit the model's grid."""
    from data_prep.records import InputError
    from pipeline.memory.activations import Tokens
    from pipeline.memory.plan import Beside, Training

    if args.gpus < 1 or args.cast < 1:
        raise InputError(f"--gpus {args.gpus}, --cast {args.cast}: must be at least 1")
    samples = args.samples or _samples(args, config)
    frames = args.frames or (config.data.num_frames if _given(args, "data.num_frames") else subject.size[0])
    size = (frames, args.height or subject.size[1], args.width or subject.size[2])
    t, h, w = _latent(size, subject)
    patch = subject.arch.patch
    visual = -(-t // patch[0]) * (h // patch[1]) * (w // patch[2])
    more = (subject.text_tokens, subject.image_tokens, subject.per_token_timesteps, args.cast)
    tokens = Tokens(samples, visual, *more)
    arch = subject.arch
    if args.both_experts:
        doubled = tuple(replace(weight, copies=2 * weight.copies) for weight in arch.weights)
        if subject.experts == 1:
            raise InputError(f"--both-experts: {subject.name} has one transformer; leave it out")
        arch = replace(arch, weights=doubled)
    latents, text = subject.codec.channels * t * h * w, subject.text_tokens * arch.text_width
    return Training(
        arch=arch,
        tokens=tokens,
        beside=Beside(latents, text, subject.resident if args.uncached else 0),
        adapter=config.model.adapter,
        identity=config.model.identity,
        engine=config.engine,
        gpus=args.gpus,
        trained_base=config.model.adapter.kind != "none",
        checkpointing=config.engine.activation_checkpointing,
    )


def _given(args: argparse.Namespace, key: str) -> bool:
    return args.config is not None or any(item.startswith(f"{key}=") for item in args.overrides)


def _samples(args: argparse.Namespace, config: TrainConfig) -> int:
    """Samples per GPU and forward pass: the configuration's if it states a batch, else 1."""
    from data_prep.records import InputError

    if not _given(args, "batch_size"):
        return 1
    passes = args.gpus * config.engine.accumulation
    if config.batch_size % passes:
        raise InputError(
            f"batch_size={config.batch_size}: not a multiple of {args.gpus} GPUs x engine.accumulation="
            f"{config.engine.accumulation}; give --samples, or batch_size={passes}"
        )
    return int(config.batch_size // passes)


def _latent(size: tuple[int, int, int], subject: Subject) -> tuple[int, int, int]:
    """Latent (t, h, w) of source frames, height and width in pixels."""
    from data_prep.records import InputError

    frames, height, width = size
    codec, patch = subject.codec, subject.arch.patch
    if frames < 1 or (frames - 1) % codec.frames:
        raise InputError(f"--frames {frames}: {subject.name} wants 1 + a multiple of {codec.frames}")
    for flag, value, cells in (("--height", height, patch[1]), ("--width", width, patch[2])):
        if value < 1 or value % (codec.pixels * cells):
            raise InputError(f"{flag} {value}: {subject.name} wants a multiple of {codec.pixels * cells}")
    return 1 + (frames - 1) // codec.frames, height // codec.pixels, width // codec.pixels


def _table(subject: Subject, made: Plan, others: list[Suggestion]) -> str:
    from pipeline.memory.plan import CARDS, GIB

    training, counts = made.training, made.counts
    engine, tokens = training.engine, training.tokens
    small = f" ({counts.quantised / 1e9:.3f} B in {engine.base_precision})" if counts.quantised else ""
    lines = [
        f"{subject.name}: {counts.trained / 1e9:.3f} B weights trained, {counts.frozen / 1e9:.3f} B frozen{small}; "
        f"{tokens.batch} x {tokens.visual} tokens per GPU",
        f"{engine.dtype}, ZeRO-{engine.zero_stage}, {training.gpus} GPUs, "
        f"checkpointing {'on' if training.checkpointing else 'off'}; GiB on each GPU:",
        "",
        *(f"  {name:34}{value / GIB:9.2f}" for name, value in made.rows.items()),
        "",
        *(f"  in sum, when {name:21}{value / GIB:9.2f}" for name, value in made.moments.items()),
        "",
        *(["  on the host, for each GPU" + f"{made.host / GIB:18.2f}"] if made.host else []),
        f"  most at once                      {made.peak / GIB:9.2f}   "
        + ", ".join(f"{card} GB: {'fits' if made.fits(card) else 'no'}" for card in CARDS),
        "",
        "what would fit, with as many samples per GPU:",
        *(f"  {line}" for line in _would_fit(others)),
    ]
    return "\n".join(lines) + "\n"


def _would_fit(others: list[Suggestion]) -> Iterator[str]:
    from pipeline.memory.plan import CARDS, GIB

    found = {other.card_gb: other for other in others}
    for card in CARDS:
        if card not in found:
            yield f"{card} GB: nothing up to 128 GPUs; use fewer frames, a smaller size or bf16"
            continue
        other = found[card]
        training, changed = other.plan.training, other.changed
        yield (
            f"{card} GB: {training.gpus} GPU{'s' * (training.gpus > 1)}, "
            f"engine.zero_stage={training.engine.zero_stage}"
            f"{', ' + changed if changed else ''} ({other.plan.peak / GIB:.1f} GiB)"
        )


def _json(subject: Subject, made: Plan, others: list[Suggestion], cost: Expected | None) -> str:
    from pipeline.memory.plan import CARDS

    document: dict[str, Any] = {
        "model": subject.name,
        "gpus": made.training.gpus,
        "engine": asdict(made.training.engine),
        "tokens": asdict(made.training.tokens),
        "trained": made.counts.trained,
        "frozen": made.counts.frozen,
        "bytes": dict(made.rows),
        "moments": dict(made.moments),
        "peak": made.peak,
        "host": made.host,
        "cost": None if cost is None else asdict(cost),
        "fits_gb": [card for card in CARDS if made.fits(card)],
        "would_fit": [
            {
                "card_gb": other.card_gb,
                "gpus": other.plan.training.gpus,
                "zero_stage": other.plan.training.engine.zero_stage,
                "changed": other.changed,
                "peak": other.plan.peak,
            }
            for other in others
        ],
    }
    return json.dumps(document, indent=2) + "\n"
