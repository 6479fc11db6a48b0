"""The knobs of preparation, each declared once, with its default, unit and reason."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DecodeConfig:
    """How frames are read."""

    long_side_px: int = (
        1280  # faces of 48 px in 4K are 16 px here, below what a recogniser can use; 4K is 9x slower
    )
    max_chunk_bytes: int = 512 * 1024**2  # frames in memory at once
    timeout_s: float = 600.0  # per clip and attempt, decoding and analysis together


@dataclass(frozen=True)
class ShotConfig:
    """Cut detection."""

    threshold: float = 27.0  # PySceneDetect's ContentDetector default: mean HSV change of 0..255


@dataclass(frozen=True)
class FaceConfig:
    """Detection, embedding and the limits below which a face is not used."""

    pack: str = "embedded"
    det_width: int = 640  # multiples of 32; 640x384 finds 30 of 31 32-px faces at 33 ms a 720p frame
    det_height: int = 384
    detect_every: int = 1  # frames between detections; boxes in between are interpolated
    embed_every: int = 4  # frames between embeddings of one track
    min_score: float = 0.65  # detector confidence for a face to join a track (OpenS2V's value)
    min_size_px: int = 24  # shorter box side


@dataclass(frozen=True)
class TrackConfig:
    """Association of faces from frame to frame."""

    max_gap_frames: int = 24  # an occlusion longer than this starts a new track; identities are linked later
    min_frames: int = 5  # shorter tracks are noise
    min_iou: float = 0.2  # overlap with the predicted box, or
    min_cosine: float = 0.4  # the same person by embedding


@dataclass(frozen=True)
class LinkConfig:
    """Which tracks are one person."""

    threshold: float = 0.0  # cosine; 0 takes the pack's own, checked against the corpus
    min_norm: float = (
        2.8  # faces with a shorter embedding are covered or cut (measured for the embedded pack)
    )


@dataclass(frozen=True)
class WindowConfig:
    """Training windows: frames, stride and size. num_frames fits the causal VAE's grouping: 1 + 4k."""

    num_frames: int = 17
    stride: int = 2
    hop: int = 34  # frames from one window's start to the next; num_frames * stride means no overlap
    width_px: int = 160
    height_px: int = 96
    max_cast: int = 8
    min_visible: float = 0.5  # share of a window's frames in which a character must be seen to join the cast
    min_face_px: float = 8.0  # shorter face side at the window's size; smaller faces teach nothing


@dataclass(frozen=True)
class ReferenceConfig:
    """Cross-face references."""

    min_count: int = 3
    max_count: int = 5
    guard_gap_s: float = 1.0  # from the window, for references of the same shot
    min_score: float = 0.8  # detector confidence; covered faces score below (measured for the embedded pack)
    min_norm: float = 2.8
    min_sharpness: float = 20.0  # variance of the Laplacian of the aligned crop
    min_similarity: float = 0.4  # below: another person
    max_similarity: float = 0.97  # above: the same picture


@dataclass(frozen=True)
class PackConfig:
    """Shards."""

    samples_per_shard: int = 16


@dataclass(frozen=True)
class RunConfig:
    """Where and how the work runs."""

    num_workers: int = 0  # 0: one per core
    max_attempts: int = 3  # a clip that kills its worker this often is quarantined
    max_quarantined: float = 0.1  # share of clips; more than this and the run fails, nothing is packed


@dataclass(frozen=True)
class PrepareConfig:
    """castbank prepare: clips in, shards out."""

    manifest: str = "???"  # the CSV
    clips: str = ""  # folder that the CSV's clip_id is relative to; empty: the CSV's own folder
    output: str = "???"
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    shots: ShotConfig = field(default_factory=ShotConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    references: ReferenceConfig = field(default_factory=ReferenceConfig)
    pack: PackConfig = field(default_factory=PackConfig)
    run: RunConfig = field(default_factory=RunConfig)
