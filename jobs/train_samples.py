"""The samples of a run, read from the cache where it holds what all of them need; and what their buckets cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.records import InputError
from pipeline.config import TrainConfig

if TYPE_CHECKING:
    from pipeline.data.features import Recogniser
    from pipeline.data.frozen import FrozenCache
    from pipeline.data.samples import Samples
    from pipeline.families.contract import LatentGrid


def open_samples(
    config: TrainConfig, recogniser: Recogniser, say: Callable[[str], None]
) -> tuple[Samples, LatentGrid]:
    """What a rank trains on, and the latent grid of its family, whose frozen parts are not loaded for it.

    Raises:
        InputError: data.cache=require, and something is not cached; or a bucket that the family cannot take.
    """
    from pipeline.data.frozen import FrozenCache
    from pipeline.data.samples import Samples
    from pipeline.families import family_type

    family = config.model.family
    frozen = family_type(family.name).frozen(family, Path(config.base or f"{config.run}/initial"))
    samples = Samples(config.data, config.seed, recogniser)
    if len(samples.buckets) > 1:
        say("\n".join(bucket_table(samples, frozen.grid, config.batch_size)))
    if config.data.cache != "off" and not config.model.losses.identity:
        cache = FrozenCache(config.data, family.name, frozen.fingerprint())
        if is_complete(config, samples, cache, say):
            samples.read_from(cache)
    return samples, frozen.grid


def is_complete(
    config: TrainConfig, samples: Samples, cache: FrozenCache, say: Callable[[str], None]
) -> bool:
    """Whether a cache holds all that a run reads; says so where it holds a part only.

    Raises:
        InputError: it does not, and ``data.cache`` is ``require``.
    """
    require = config.data.cache == "require"
    if not require and not len(cache.latents):
        return False
    samples.know_outlines()
    texts, latents = samples.missing(cache)
    if not texts and not latents:
        return True
    lacks = (
        f"{latents} of {len(samples.cuts())} latents and {texts} of {len(samples.texts()) + 1} texts are not "
        f"cached in {str(cache.latents.folder.parent)!r} for this model and configuration"
    )
    remedy = f"run: castbank cache --config {Path(config.run) / 'config.yaml'}"
    if not require:
        say(f"{lacks}, so that all are computed while training; to compute them ahead, {remedy}")
        return False
    others = [
        ", ".join(f"{name} {value[:12]}" for name, value in sorted(key.items()))
        for key in cache.latents.others()
    ]
    found = f"; what is there is of: {' | '.join(others)}; here it is {cache.latents.key}" if others else ""
    raise InputError(f"data.cache=require: {lacks}{found}; {remedy}")


def bucket_table(samples: Samples, grid: LatentGrid, batch_size: int) -> Iterator[str]:
    """Lines that say, per bucket: samples, visual tokens of each, batch, share of tokens that only fill the last
    ones (padding), and share of the samples' frames and pixels that is not taken."""
    from pipeline.data.cuts import Bucket, kept
    from pipeline.data.samples import multiples

    yield f"{'bucket':>16} {'samples':>9} {'tokens':>8} {'batch':>6} {'padding':>8} {'cut away':>9}"
    all_tokens = all_filled = 0
    times = multiples(samples.config, list(samples.buckets), grid)
    for (bucket, indices), multiple in zip(samples.buckets.items(), times, strict=True):
        sizes = Counter(bucket or samples.own_size(index) for index in indices)
        for size, count in sorted(sizes.items(), key=str):
            tokens, filled = grid.num_tokens(size.num_frames, size.height_px, size.width_px)
            all_tokens, all_filled = all_tokens + count * tokens, all_filled + count * filled
            taken = sum(kept(samples.config, samples.outline(i), size) for i in indices) / len(indices)
            assert isinstance(size, Bucket)
            yield (
                f"{size!s:>16} {count:>9} {filled:>8} {batch_size * multiple:>6} {1 - tokens / filled:>8.1%} "
                f"{1 - taken:>9.1%}"
            )
    yield f"{'all':>16} {len(samples):>9} {'':>8} {'':>6} {1 - all_tokens / max(all_filled, 1):>8.1%}"
    if samples.left_out:
        yield f"{'no bucket':>16} {samples.left_out:>9} (too short for all, or too small for data.max_upscale)"
