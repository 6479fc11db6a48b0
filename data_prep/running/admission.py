"""What a clip will need of a worker, from its pixels and frames as the manifest has them: memory and time.

Ray starts a clip on a node where so much memory is free, so that a few clips in 8K take the place of many small
ones, and no node is filled until the kernel kills something.
"""

from __future__ import annotations

import math

from data_prep.config import DecodeConfig
from data_prep.records import Clip

MODELS_BYTES = (
    300 * 1024**2
)  # interpreter, libraries and a face pack; tests/bench/test_prepare_cost.py measures
CHUNKS = 2  # of frames: the one looked at, and what a resize or the encoders of its windows hold of it
DECODER_PICTURES = 10  # at 4K levels allow 5 references (H.264) to 8 (AV1), and one or two are on their way
PICTURE_BYTES_PER_PX = 3.0  # 4:2:0 at 10 bit, the largest that is common
FRAMES_PER_LIMIT = 1000  # frames that decode.timeout_s is for
UNKNOWN_SIZE_PX = (3840, 2160)  # of a clip whose size nobody has said


def num_frames(clip: Clip) -> int:
    """Frames of the clip's span; 0 where nobody has said how long it is."""
    return math.ceil((clip.end_s - clip.start_s) * clip.fps)


def memory_bytes(clip: Clip, decode: DecodeConfig) -> int:
    """Most that a worker holds while it analyses the clip."""
    known = clip.width_px and clip.height_px
    width_px, height_px = (clip.width_px, clip.height_px) if known else UNKNOWN_SIZE_PX
    pixels = width_px * height_px
    shrunk = min(1.0, decode.long_side_px / max(width_px, height_px))
    frame_bytes = math.ceil(pixels * shrunk**2) * 3  # RGB at the size that is analysed
    chunk_bytes = max(decode.max_chunk_bytes, frame_bytes)
    if num_frames(clip):
        chunk_bytes = min(num_frames(clip) * frame_bytes, chunk_bytes)
    pictures_bytes = math.ceil(DECODER_PICTURES * pixels * PICTURE_BYTES_PER_PX)
    return MODELS_BYTES + CHUNKS * chunk_bytes + pictures_bytes


def timeout_s(clip: Clip, decode: DecodeConfig) -> float:
    """Seconds that one attempt may take: the limit once for every FRAMES_PER_LIMIT frames begun."""
    return decode.timeout_s * max(1, math.ceil(num_frames(clip) / FRAMES_PER_LIMIT))
