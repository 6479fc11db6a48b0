"""One clip, one decoding pass: shots, pictures, faces, tracks and encoded candidate windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.analysis.following import FaceFollower
from data_prep.analysis.limits import with_pack_limits
from data_prep.analysis.masks import back_to_front, draw
from data_prep.analysis.motion import FlowMeter
from data_prep.analysis.pictures import PATCH_PX, PictureMeter
from data_prep.analysis.shots import SMALL_PX, CutFinder, shots_between, thumbnail
from data_prep.analysis.text_area import text_detector
from data_prep.analysis.windows import Framing, Recorded, WindowRecorder
from data_prep.config import PrepareConfig
from data_prep.decode import Chunk
from data_prep.faces.packs import known_pack
from data_prep.records import I32, U8, AnalysedClip, Clip, Decision, FaceTrack, Window
from data_prep.video.probe import MAX_UNEVENNESS, UnusableError, unevenness
from data_prep.video.reading import Reading, reading


def analyse(clip: Clip, config: PrepareConfig) -> AnalysedClip:
    """All that preparation needs from a clip. A file that no clip can be made of gives an AnalysedClip without
    frames and the Decision that says why; an unknown or missing face pack raises InputError."""
    config = with_pack_limits(config, known_pack(config.faces.pack))
    try:
        with reading(Path(clip.path), config.decode) as source:
            return _analysed(clip, config, source)
    except UnusableError as error:
        why = Decision(
            clip.id, "clip", "dropped", "analyse", error.rule, error.value, error.limit, detail=error.detail
        )
        return AnalysedClip(clip, 0, 0, np.zeros(0), (), (), (), decisions=(why,))


def _analysed(clip: Clip, config: PrepareConfig, source: Reading) -> AnalysedClip:
    watch: _Watch | None = None
    for chunk in source.chunks():
        if watch is None:
            watch = _Watch(clip.id, config, source, (chunk.frames.shape[2], chunk.frames.shape[1]))
        watch.see_all(chunk)
        del chunk  # or its frames would live while the next ones are read
    assert watch is not None  # a probed file has a frame
    return watch.finish(clip)


class _Watch:
    """What is known of a clip so far, while its frames pass by."""

    def __init__(
        self, clip_id: str, config: PrepareConfig, source: Reading, size_px: tuple[int, int]
    ) -> None:
        self._clip_id, self._source, self._size_px = clip_id, source, size_px
        self._framing = Framing.of(*size_px, config.windows)
        self._recorder = WindowRecorder(self._framing, config.windows, source.found.times_s)
        scale = max(1.0, max(size_px) / SMALL_PX)
        patches = (max(1, source.own.width_px // PATCH_PX), max(1, source.own.height_px // PATCH_PX))
        self._meter = PictureMeter(scale, patches, text_detector(config.quality.text_detector))
        self._flow = FlowMeter()
        self._cuts = CutFinder(config.shots)
        self._waiting: deque[tuple[int, U8, U8]] = deque()  # frame, image, thumbnail: is it a cut?
        self._follower = FaceFollower(clip_id, config, scale)
        self._starts = [0]
        self._recorded: list[tuple[int, Recorded]] = []
        self._tracks: list[FaceTrack] = []
        self._decisions: list[Decision] = []

    def see_all(self, chunk: Chunk) -> None:
        """The next frames, in order."""
        for at, image in enumerate(chunk.frames):
            thumb = thumbnail(image)
            self._cuts.see(thumb)
            kept = image.copy() if self._cuts.delay else image  # a view would keep its whole chunk
            self._waiting.append((chunk.start + at, kept, thumb))
            if len(self._waiting) > self._cuts.delay:
                self._see(*self._waiting.popleft())

    def _see(self, frame: int, image: U8, thumb: U8) -> None:
        """The next frame of which it is known whether it is a cut: u8[H,W,3] RGB and its thumbnail."""
        if frame and self._cuts.is_cut(frame):
            self._finish_shot()
            self._starts.append(frame)
        offset = frame - self._starts[-1]
        flow = self._flow.see(thumb)
        self._meter.see(offset, image, thumb, flow)
        used, recorded = self._recorder.see(frame, offset, image)
        self._recorded.extend((len(self._starts) - 1, r) for r in recorded)
        self._follower.see(frame, image, flow, used=used)

    def _finish_shot(self) -> None:
        """Turns what was seen since the last cut into tracks."""
        tracks, decisions = self._follower.finish_shot(len(self._starts) - 1)
        self._tracks += tracks
        self._decisions += decisions
        self._flow.cut()
        self._recorder.cut()

    def _drop(
        self, item: str, kind: Literal["clip", "track", "window"], rule: str, value: str, limit: str
    ) -> None:
        self._decisions.append(Decision(item, kind, "dropped", "analyse", rule, value, limit))

    def finish(self, clip: Clip) -> AnalysedClip:
        """The whole clip, once its last frame was seen."""
        while self._waiting:
            self._see(*self._waiting.popleft())
        self._finish_shot()
        if not self._tracks:
            self._drop(clip.id, "clip", "no_face", "0 tracks", "at least 1")
        recorded = enumerate(self._recorded if self._tracks else [])
        windows = [self._window(index, shot, window) for index, (shot, window) in recorded]
        return AnalysedClip(
            clip=clip,
            width_px=self._size_px[0],
            height_px=self._size_px[1],
            times_s=self._source.found.times_s,
            shots=shots_between(self._starts[1:], self._source.found.num_frames),
            tracks=tuple(self._tracks),
            windows=tuple(window for window in windows if window is not None),
            decisions=tuple(self._decisions),
            decoder=self._source.decoder,
            medium=self._source.medium,
            fingerprint=self._source.found.fingerprint,
            pictures=self._meter.finish(),
        )

    def _window(self, index: int, shot: int, recorded: Recorded) -> Window | None:
        """The window with its label map, or None and a Decision."""
        window_id = f"{self._clip_id}-w{index:03d}"
        uneven = unevenness(self._source.found.times_s[recorded.frames])
        if uneven > MAX_UNEVENNESS:
            self._drop(window_id, "window", "uneven_rate", f"{uneven:.2f}", f"{MAX_UNEVENNESS:g}")
            return None
        seen = [t for t in self._tracks if np.isin(t.frames, recorded.frames).any()]
        if not seen:
            self._drop(window_id, "window", "no_face", "0 tracks", "at least 1")
            return None
        labels = track_map(seen, recorded.frames, self._framing)
        return Window(index, shot, recorded.frames, recorded.mp4, labels, tuple(t.id for t in seen))


def track_map(tracks: Sequence[FaceTrack], frames: I32, framing: Framing) -> U8:
    """u8[T,H,W] at the bucket's size: k where ``tracks[k-1]`` is seen in front, 0 where nobody is."""
    labels = np.zeros((len(frames), framing.height_px, framing.width_px), np.uint8)
    for at, frame in enumerate(frames.tolist()):
        seen = [(slot, t, t.row(frame)) for slot, t in enumerate(tracks) if frame in t.frames]
        if seen:
            boxes_px = np.stack([t.boxes_px[row] for _, t, row in seen])
            order = back_to_front(boxes_px, np.array([t.scores[row] for _, t, row in seen], np.float32))
            drawn = draw([framing.points(t.ovals_px[row]) for _, t, row in seen], *labels.shape[1:], order)
            slots = np.array([0, *(slot + 1 for slot, _, _ in seen)], np.uint8)
            labels[at] = slots[drawn]
    return labels
