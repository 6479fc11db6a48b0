"""All figures of the video in one pass: frames go in as they are decoded, and nothing of a video stays.

What is kept from video to video are sums (the means and covariances of FID and FVD), so that memory does not grow
with their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_prep.records import F64, U8, InputError
from pipeline.judging.video.clip import clip_scores, load_clip
from pipeline.judging.video.frechet import Frechet
from pipeline.judging.video.movement import MovementMeter, as_figures
from pipeline.judging.video.networks import image_network, video_network


@dataclass(frozen=True)
class Asked:
    """What of the video is measured beside motion and flicker. clip: a folder or hub id; fid, fvd: networks by the
    names of ``networks``; empty ones are left out. frames: evenly spaced of each video for CLIPScore and FID;
    window: frames in a row that FVD takes as one video."""

    clip: str = ""
    fid: str = ""
    fvd: str = ""
    frames: int = 16
    window: int = 16


class VideoJudge:
    """Loads what was asked for once, and sees any number of videos."""

    def __init__(self, asked: Asked) -> None:
        """Raises InputError where a network does not load."""
        self.asked = asked
        self.clip = load_clip(asked.clip) if asked.clip else None
        self.images = image_network(asked.fid) if asked.fid else None
        self.videos = video_network(asked.fvd) if asked.fvd else None
        self.fid, self.fvd = Frechet("fid"), Frechet("fvd")

    def watch(self, name: str, num_frames: int, prompt: str = "", *, real: bool = False) -> Watch:
        """A new video, of so many frames; real ones are only compared with."""
        return Watch(self, name, num_frames, prompt, real=real)

    def distances(self) -> dict[str, float]:
        """FID and FVD of all generated videos against all real ones; raises InputError with too few."""
        found = {}
        if self.images is not None:
            found["fid"] = self.fid.distance()
        if self.videos is not None:
            found["fvd"] = self.fvd.distance()
        return found


class Watch:
    """One video, seen chunk by chunk."""

    def __init__(self, judge: VideoJudge, name: str, num_frames: int, prompt: str, *, real: bool) -> None:
        if judge.videos is not None and num_frames < judge.asked.window:
            raise InputError(
                f"--fvd-frames: {name} has {num_frames} frames, a window takes {judge.asked.window}; give "
                "fewer, or leave --fvd out"
            )
        self._judge, self._real = judge, real
        self._looked = frozenset(spaced(num_frames, judge.asked.frames))
        self._text = judge.clip.text_features(prompt) if judge.clip and prompt and not real else None
        self._meter = MovementMeter()
        self._scores: list[F64] = []
        self._window: list[U8] = []
        self._seen = 0

    def see(self, frames: U8) -> None:
        """The next frames in order, u8[n,H,W,3] RGB."""
        if not self._real:
            self._meter.see(frames)
        looked = [at for at in range(len(frames)) if self._seen + at in self._looked]
        self._seen += len(frames)
        if looked and self._judge.images is not None:
            self._judge.fid.add(self._judge.images(frames[looked]), self._real)
        if looked and self._judge.clip is not None and self._text is not None:
            self._scores.append(clip_scores(self._judge.clip.image_features(frames[looked]), self._text))
        if self._judge.videos is not None:
            self._fill_windows(frames)

    def figures(self) -> dict[str, float]:
        """The video's own figures by name; those that cannot be had are not there."""
        found = as_figures(self._meter.result())
        if self._scores:
            found["clip_score"] = float(np.concatenate(self._scores).mean())
        return found

    def _fill_windows(self, frames: U8) -> None:
        for frame in frames:
            self._window.append(frame.copy())  # else the whole chunk would stay
            if len(self._window) == self._judge.asked.window:
                assert self._judge.videos is not None
                self._judge.fvd.add(self._judge.videos(np.stack(self._window)), self._real)
                self._window.clear()


def spaced(count: int, most: int) -> list[int]:
    """At most so many numbers below ``count``, evenly spaced, the first and the last among them."""
    if count < 1:
        return []
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))
