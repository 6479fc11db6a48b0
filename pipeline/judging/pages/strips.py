"""A video as one small picture: some of its frames side by side, which the page shows one after the other."""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.records import U8
from pipeline.judging.video.watch import spaced

NUM_FRAMES = 8  # of a strip
WIDTH_PX = 192  # of each
QUALITY = 80  # of the JPEG; some 30 kB a strip


class Strip:
    """Sees a video's frames in order and keeps small ones of some."""

    def __init__(self, num_frames: int) -> None:
        self._wanted = frozenset(spaced(num_frames, NUM_FRAMES))
        self._kept: list[U8] = []
        self._seen = 0

    def see(self, frames: U8) -> None:
        """The next frames, u8[n,H,W,3] RGB."""
        for at, frame in enumerate(frames, self._seen):
            if at in self._wanted:
                height = max(1, round(WIDTH_PX * frame.shape[0] / frame.shape[1]))
                small = cv2.resize(frame, (WIDTH_PX, height), interpolation=cv2.INTER_AREA)
                self._kept.append(np.asarray(small, np.uint8))
        self._seen += len(frames)

    def jpeg(self) -> bytes:
        """The strip; always of NUM_FRAMES, the last one repeated in a shorter video. Empty where none was seen."""
        if not self._kept:
            return b""
        frames = [*self._kept, *[self._kept[-1]] * (NUM_FRAMES - len(self._kept))][:NUM_FRAMES]
        joined = np.ascontiguousarray(np.concatenate(frames, 1)[..., ::-1])
        done, encoded = cv2.imencode(".jpg", joined, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        assert done
        return bytes(encoded.tobytes())
