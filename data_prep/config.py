"""The knobs of preparation, each declared once, with its default, unit and reason, and checked when it is made.

A limit that only holds for one recogniser is 0 here, which takes the face pack's own (see
``data_prep.analysis.limits``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from data_prep.records import InputError, MaskRegion


def _check(section: str, made: object, **allowed: tuple[float, float]) -> None:
    """Raise InputError for the first field that is not within its bounds, both of them allowed."""
    for name, (low, high) in allowed.items():
        value = getattr(made, name)
        if not low <= value <= high:
            wanted = f"from {low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise InputError(f"{section}.{name}: came {value:g}, allowed is {wanted}; correct it")


def _check_multiple(section: str, made: object, of: int, *names: str) -> None:
    for name in names:
        value = getattr(made, name)
        if value % of:
            near = max(of, round(value / of) * of)
            raise InputError(f"{section}.{name}: came {value}, allowed are multiples of {of}; take {near}")


MANY = math.inf


Treatment = Literal["read", "canonicalise", "refuse"]
Reader = Literal["decord", "pyav"]


@dataclass(frozen=True)
class UnusualConfig:
    """What becomes of a file with a trait that decord reads wrongly or models take wrongly.

    read: PyAV reads it as it is, every frame once with its own time; canonicalise: it is first made a closed-GOP
    H.264 at a constant rate from time zero, upright, SDR; refuse: the clip is dropped by the trait's name.
    """

    hdr: Treatment = "read"  # PQ or HLG; either way it is tone-mapped to SDR, and not encoded twice if read
    ten_bit: Treatment = "read"  # more than 8 bits a colour sample, rounded to 8
    variable_rate: Treatment = (
        "canonicalise"  # a step more than half off the median; read, its windows are dropped
    )
    codec: Treatment = "read"  # other than H.264, MPEG-4, VP8, VP9, MJPEG: AV1, HEVC, ProRes
    open_gop: Treatment = "read"  # frames shown before their key frame: decord gets them wrong after a seek
    edit_list: Treatment = "read"  # frames that the container hides: decord shows them
    late_start: Treatment = "read"  # a first time stamp other than 0: sound that begins earlier, or a cut
    rotated: Treatment = "read"  # by a display matrix, as phones do


@dataclass(frozen=True)
class IngestConfig:
    """Where clips are read from, and what is not taken from there."""

    endpoint: str = ""  # of an S3 server other than AWS's own; empty: what AWS_ENDPOINT_URL says, else AWS
    max_attempts: int = 6  # of one request of a store
    backoff_s: float = 0.5  # before the second attempt; doubled each time, at most 30 s
    timeout_s: float = 60.0  # of one request; a range of a clip is 16 MiB
    max_clip_bytes: int = 16 * 1024**3  # larger files are not fetched or unpacked; 30 s of 8K are below 1 GB
    max_ratio: float = 50.0  # unpacked to packed size of a zip's member; a video's is 1.0, a bomb's 1000

    def __post_init__(self) -> None:
        _check("ingest", self, max_attempts=(1, 100), backoff_s=(0, MANY), timeout_s=(0.1, MANY))
        _check("ingest", self, max_clip_bytes=(1, MANY), max_ratio=(1, MANY))


@dataclass(frozen=True)
class DecodeConfig:
    """How frames are read."""

    long_side_px: int = (
        1280  # faces of 48 px in 4K are 16 px here, below what a recogniser can use; 4K is 9x slower
    )
    max_chunk_bytes: int = 512 * 1024**2  # frames in memory at once
    timeout_s: float = 600.0  # per attempt and 1,000 frames begun, decoding and analysis together
    # pyav: always; faster, and it refuses damaged files (113 of 120 with one bit flipped) of which decord gives the
    # frames as if nothing were (71 of 120 visibly wrong). decord: where it reads rightly, PyAV elsewhere
    reader: Reader = "pyav"
    unusual: UnusualConfig = field(default_factory=UnusualConfig)

    def __post_init__(self) -> None:
        _check("decode", self, long_side_px=(64, MANY), max_chunk_bytes=(1, MANY), timeout_s=(1, MANY))


@dataclass(frozen=True)
class ShotConfig:
    """Cut detection, by PySceneDetect."""

    detector: Literal["content", "adaptive", "histogram"] = (
        "content"  # change of two frames; adaptive: against the changes about it, which a moving camera makes too
    )
    threshold: float = 0.0  # in the detector's own measure; 0 takes its default: 27 (of 255), 3 times, 0.05

    def __post_init__(self) -> None:
        _check("shots", self, threshold=(0, 255))


@dataclass(frozen=True)
class QualityConfig:
    """Which shots give windows, by their pictures; every limit but -1 replaces the preset's (see
    data_prep/analysis/quality.py).

    Changing a preset or a limit judges again what is measured already; only text_detector needs another analysis.
    """

    preset: Literal["off", "ultravideo", "nemo", "people"] = (
        "off"  # off: nothing is dropped, the ledger has every shot's numbers; people: UltraVideo's for who talks
    )
    text_detector: Literal["", "rapidocr"] = (
        ""  # empty: text is not measured; rapidocr-onnxruntime brings its model
    )
    min_side_px: float = -1.0  # shorter side of the source
    min_shot_s: float = -1.0  # seconds
    max_clipped: float = -1.0  # share of a frame's pixels above 250 or below 5; more, and the frame is bad
    min_border: float = -1.0  # mean brightness, 0..255, of each 3 % border strip; less, and the frame is bad
    min_colour: float = -1.0  # mean variance over the colours; less, and the frame is bad
    max_bad_frames: float = -1.0  # share of the shot's frames
    min_sharpness: float = -1.0  # variance of the frame's Laplacian, median over the shot
    min_motion_px: float = -1.0  # mean optical flow, pixels a frame
    max_motion_px: float = -1.0
    min_motion: float = -1.0  # the same, as a share of width + height
    min_patch_motion: float = -1.0  # the same, in the stillest patch of 256 px
    max_text: float = -1.0  # share of the picture

    def __post_init__(self) -> None:
        shares = ("max_clipped", "max_bad_frames", "max_text", "min_motion", "min_patch_motion")
        _check("quality", self, **dict.fromkeys(shares, (-1, 1)))
        others = ("min_side_px", "min_shot_s", "min_border", "min_colour", "min_sharpness")
        _check("quality", self, **dict.fromkeys(others, (-1, MANY)), min_motion_px=(-1, MANY))
        _check("quality", self, max_motion_px=(-1, MANY))


@dataclass(frozen=True)
class FaceConfig:
    """Detection, embedding and the limits below which a face is not used."""

    pack: str = "embedded"
    det_width: int = 640  # multiples of 32; 640x384 finds 30 of 31 32-px faces at 33 ms a 720p frame
    det_height: int = 384
    detect_every: int = 4  # frames between detections where nothing moves; boxes in between are interpolated
    max_travel: float = (
        0.1  # of a face's size: what has moved by more is looked for at once; 1: detect_every is all
    )
    embed_every: int = 4  # frames between embeddings of one track
    min_score: float = 0.65  # detector confidence for a face to join a track (OpenS2V's value)
    min_size_px: int = 24  # shorter box side

    def __post_init__(self) -> None:
        _check("faces", self, det_width=(32, MANY), det_height=(32, MANY), min_size_px=(1, MANY))
        _check("faces", self, detect_every=(1, MANY), embed_every=(1, MANY), min_score=(0, 1))
        _check("faces", self, max_travel=(0, MANY))
        _check_multiple("faces", self, 32, "det_width", "det_height")


@dataclass(frozen=True)
class TrackConfig:
    """Association of faces from frame to frame."""

    max_gap_frames: int = (
        24  # an occlusion longer than this is an exit: only a clear likeness continues the track
    )
    reentry_margin: float = (
        0.1  # cosine above min_cosine that is clear; 2: a new track, identities are linked later
    )
    min_frames: int = 5  # shorter tracks are noise
    min_iou: float = 0.2  # overlap with the predicted box, or
    min_cosine: float = 0.0  # the same person by embedding; 0 takes the pack's own

    def __post_init__(self) -> None:
        _check("tracks", self, max_gap_frames=(1, MANY), min_frames=(1, MANY))
        _check("tracks", self, min_iou=(0.01, 1), min_cosine=(-1, 1), reentry_margin=(0, 2))


@dataclass(frozen=True)
class LinkConfig:
    """Which tracks are one person."""

    threshold: float = 0.0  # tracks are one person from this average cosine; 0 takes the pack's own
    # share of faces seen in one frame that may pass as one person; threshold is raised until no more do, measured
    # on every corpus anew; 1 leaves it as it is
    max_false_accept: float = 0.01
    max_false_reject: float = 0.05  # share of one track's own faces that a raised threshold may refuse
    # strangers in other sources that a character may meet above the threshold, by the corpus's own distribution:
    # the threshold between sources grows with the corpus; 1 takes one within and between sources
    max_chance: float = 0.01
    min_norm: float = 0.0  # faces with a shorter embedding are covered or cut; 0 takes the pack's own
    # characters of the last run stay as they are and new tracks join them; false links everything anew, and a
    # character keeps the id that most of its tracks had
    keep_characters: bool = True
    overrides: str = ""  # YAML with what people decided about characters: merge, split, rename, exclude

    def __post_init__(self) -> None:
        _check("link", self, threshold=(-1, 1), min_norm=(0, MANY))
        _check("link", self, max_false_accept=(1e-6, 1), max_false_reject=(0, 1), max_chance=(1e-9, 1))


@dataclass(frozen=True)
class WindowConfig:
    """Training windows: frames, stride and size. Video models want 1 + 4k frames, as causal VAEs group them."""

    num_frames: int = 17
    stride: int = 2
    hop: int = 34  # frames from one window's start to the next; num_frames * stride means no overlap
    width_px: int = 160
    height_px: int = 96
    max_cast: int = 8
    min_visible: float = 0.5  # share of a window's frames in which a character must be seen to join the cast
    min_face_px: float = 8.0  # shorter face side at the window's size; smaller faces teach nothing

    def __post_init__(self) -> None:
        _check("windows", self, num_frames=(2, MANY), stride=(1, MANY), hop=(1, MANY))
        _check("windows", self, width_px=(16, MANY), height_px=(16, MANY), max_cast=(1, 255))
        _check("windows", self, min_visible=(0, 1), min_face_px=(0, MANY))
        _check_multiple("windows", self, 2, "width_px", "height_px")  # H.264 halves the colour planes


@dataclass(frozen=True)
class MaskConfig:
    """What of a person the label map shows."""

    # person: hair, clothes and body too, 3 ms a frame and person (castbank faces install person); boxes stay
    # those of faces
    region: MaskRegion = "face"

    def __post_init__(self) -> None:
        if self.region not in get_args(MaskRegion):
            raise InputError(
                f"masks.region: came {self.region!r}, allowed are {', '.join(get_args(MaskRegion))}; correct it"
            )


@dataclass(frozen=True)
class ReferenceConfig:
    """Cross-face references."""

    min_count: int = 3
    max_count: int = 5
    guard_gap_s: float = 1.0  # from the window, for references of the same shot
    min_score: float = 0.0  # detector confidence; covered faces score below; 0 takes the pack's own
    min_norm: float = 0.0  # embedding length, as link.min_norm; 0 takes the pack's own
    min_sharpness: float = 20.0  # variance of the Laplacian of the aligned crop
    min_size_px: float = (
        40.0  # shorter side of the face in the analysed frame; the crop has 112, the rest is enlarged
    )
    min_similarity: float = 0.0  # cosine; below: another person; 0 takes the pack's own
    max_similarity: float = 0.97  # cosine; above: the same picture

    def __post_init__(self) -> None:
        _check("references", self, min_count=(1, MANY), max_count=(self.min_count, MANY))
        _check("references", self, guard_gap_s=(0, MANY), min_score=(0, 1), min_norm=(0, MANY))
        _check("references", self, min_sharpness=(0, MANY), min_size_px=(0, MANY), min_similarity=(-1, 1))
        _check("references", self, max_similarity=(self.min_similarity, 1))


@dataclass(frozen=True)
class CaptionConfig:
    """Asking a model that sees who is who; without a url, captions are made from the manifest's alone."""

    url: str = ""  # of an OpenAI-compatible endpoint, up to and with /v1; empty: nobody is asked
    model: str = ""  # as the endpoint calls it
    key: str = ""  # env:NAME or file:PATH of the API key; empty sends none
    usd_per_million_in: float = (
        -1.0
    )  # price of tokens sent; must be given with a url, 0 for a model of your own
    usd_per_million_out: float = -1.0  # price of tokens received
    max_usd: float = (
        10.0  # nothing is asked that could cost more in all, earlier runs of the same cache included
    )
    samples_per_request: int = 4  # more are cheaper, and more is asked again when an answer is useless
    num_parallel: int = 8  # requests at once
    max_output_tokens: int = 300  # per sample; three people and a scene need 150
    max_attempts: int = 5  # of a request that fails, and of a sample whose answer is useless
    backoff_s: float = 1.0  # before the second attempt; doubled each time, at most 60 s
    timeout_s: float = 120.0  # of one request
    max_failed: float = 0.05  # share of samples that may stay without a usable answer
    cache: str = (
        ""  # file of answers, which outputs may share; empty: answers.jsonl in the output's .captions
    )

    def __post_init__(self) -> None:
        _check("captions", self, max_usd=(0, MANY), samples_per_request=(1, 64), num_parallel=(1, 256))
        _check("captions", self, max_output_tokens=(16, MANY), max_attempts=(1, 100), backoff_s=(0, MANY))
        _check("captions", self, timeout_s=(0.1, MANY), max_failed=(0, 1))


@dataclass(frozen=True)
class PackConfig:
    """Shards."""

    shard_bytes: int = 256 * 1024**2  # what a shard should not exceed: large reads, and 1 TB is 4,000 files
    samples_per_shard: int = 1000  # nor this, however small they are
    # share of the samples that is kept apart in shards of its own, by whole groups of sources that show the same
    # people, so that no person and no source is on both sides; 0: none
    validation: float = 0.0

    def __post_init__(self) -> None:
        _check("pack", self, shard_bytes=(1, MANY), samples_per_shard=(1, MANY), validation=(0, 0.9))


@dataclass(frozen=True)
class RunConfig:
    """Where and how the work runs."""

    num_workers: int = 0  # 0: one per core
    max_attempts: int = 3  # a clip that kills its worker this often is quarantined
    max_quarantined: float = 0.1  # share of clips; once it is plain that more will fail, the run stops
    lock_wait_s: float = (
        0.0  # for another preparation that holds the output; in a job at least 60, since a job
    )
    # that its scheduler puts back in the queue may meet its old self, which is still ending

    def __post_init__(self) -> None:
        _check("run", self, num_workers=(0, MANY), max_attempts=(1, MANY), max_quarantined=(0, 1))
        _check("run", self, lock_wait_s=(0, MANY))


@dataclass(frozen=True)
class TrackingConfig:
    """Where a preparation is seen, as castbank train's trainings are."""

    kind: Literal["mlflow", "none"] = (
        "mlflow"  # a run per generation of shards; never makes a preparation fail
    )
    uri: str = ""  # any MLflow tracking URI; empty: mlflow.db beside the output folder
    experiment: str = "castbank"  # of MLflow; made where it is not there


@dataclass(frozen=True)
class PrepareConfig:
    """castbank prepare: clips in, shards out."""

    manifest: str = "???"  # the table, or the folder of clips
    clips: str = ""  # folder or URL that a table's clip_id is relative to; empty: the table's own folder
    output: str = "???"
    ingest: IngestConfig = field(default_factory=IngestConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    shots: ShotConfig = field(default_factory=ShotConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    references: ReferenceConfig = field(default_factory=ReferenceConfig)
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    pack: PackConfig = field(default_factory=PackConfig)
    run: RunConfig = field(default_factory=RunConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
