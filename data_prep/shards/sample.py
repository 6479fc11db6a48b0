"""One sample of a shard: its record, its five members as bytes and back, and the rule on references.

The rule that no reference may come from the frames being trained on is enforced here when a sample is encoded
and again when it is decoded, whoever wrote it.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np

from data_prep.records import U8, Captions, Consent, InputError, Json, MaskRegion, Origin

SCHEMA = 2
READ = (1, SCHEMA)  # 1: references without landmarks
MEMBERS = ("json", "labelmap.png", "mp4", "references.png", "txt")
REFERENCE_PX = 112
MAX_KEY = 85  # a ustar header has 100 bytes for a name, and ".references.png" follows
_KEY = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_KEY}}}")


class ShardError(InputError):
    """A sample or shard breaks the format; the message names the sample and the field."""


@dataclass(frozen=True)
class CastMember:
    """One slot of a cast: ``slot`` counts from 1; ``sentence`` binds the slot's token to the person."""

    slot: int
    character_id: str
    sentence: str


@dataclass(frozen=True)
class ReferenceNote:
    """Where one reference face comes from. time_s: in its clip's file; time_gap_s: distance in the source's
    time to the nearest frame of the sample, None when the source differs; similarity: cosine in [-1,1]; size_px:
    shorter side of the face where it was cut out, 0 in shards from before it was kept; landmarks_px: x y of the
    five points that the picture is aligned by, in its pixels (eyes, nose, mouth corners, image left first), None in
    shards of schema 1."""

    character_id: str
    clip_id: str
    source_id: str
    track_id: str
    frame: int
    time_s: float
    origin: Origin
    time_gap_s: float | None
    similarity: float
    yaw_deg: float
    yaw_difference_deg: float
    sharpness: float
    size_px: float = 0.0
    landmarks_px: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class SampleNote:
    """What ``KEY.json`` holds. frames: analysed frame indices of the clip, frame_times_s: their times in the
    clip's file, both of length T; boxes_px: per slot T boxes x1 y1 x2 y2 of the face at the sample's own size, None
    where it is not seen; mask_region: what of a person the label map shows; start_s and end_s: span in the source;
    guard_gap_s: least distance of a reference of the same shot; similarity_bounds: least and greatest similarity of
    a reference; references: per slot, in the order of the picture's columns."""

    key: str
    clip_id: str
    source_id: str
    shot: int
    window: int
    start_s: float
    end_s: float
    frames: tuple[int, ...]
    frame_times_s: tuple[float, ...]
    fps: float
    width_px: int
    height_px: int
    cast: tuple[CastMember, ...]
    references: tuple[tuple[ReferenceNote, ...], ...]
    boxes_px: tuple[tuple[tuple[float, float, float, float] | None, ...], ...]
    captions: Captions
    guard_gap_s: float
    licence: str = ""
    consent: Consent = "unknown"
    similarity_bounds: tuple[float, float] = (-1.0, 1.0)
    mask_region: MaskRegion = "face"
    schema: int = SCHEMA


@dataclass(frozen=True)
class Sample:
    """One training example. mp4: the encoded video; label_map: u8[T,H,W]; references: per slot u8[R,112,112,3]
    RGB, R as in the note; caption: the training caption."""

    note: SampleNote
    mp4: bytes = field(repr=False)
    label_map: U8 = field(repr=False)
    references: tuple[U8, ...] = field(repr=False)
    caption: str


def check_references(note: SampleNote) -> None:
    """Raise ShardError for a slot without references, or a reference from the frames being trained on."""
    for member, references in zip(note.cast, note.references, strict=True):
        where = f"sample {note.key}, slot {member.slot} ({member.character_id})"
        if not references:
            raise ShardError(f"{where}: no reference; at least one from outside the window is needed")
        for reference in references:
            problem = _trespass(note, member, reference) or _unlike(note, reference)
            if problem:
                raise ShardError(
                    f"{where}: reference {reference.clip_id} frame {reference.frame} {problem}; references come "
                    "from outside the frames being trained on and show the same person: prepare the shards again"
                )


def _trespass(note: SampleNote, member: CastMember, reference: ReferenceNote) -> str:
    """Why a reference may not serve this slot, or an empty string."""
    if reference.character_id != member.character_id:
        return f"shows {reference.character_id}"
    if (reference.origin == "other_clip") != (reference.clip_id != note.clip_id):
        return f"says origin {reference.origin}, the sample's clip is {note.clip_id}"
    if reference.source_id == note.source_id and not (reference.time_gap_s or 0) > 0:
        return "lies inside the sample's span of the source"
    if reference.clip_id == note.clip_id:
        if note.frames[0] <= reference.frame <= note.frames[-1]:
            return "lies inside the window"
        if reference.origin == "same_shot" and (reference.time_gap_s or 0) < note.guard_gap_s:
            return f"is {reference.time_gap_s} s away, the guard gap is {note.guard_gap_s} s"
    return ""


def _unlike(note: SampleNote, reference: ReferenceNote) -> str:
    """Why a reference is not surely the same person, or surely the same picture, or an empty string."""
    low, high = note.similarity_bounds
    allowed = low <= reference.similarity <= high
    return "" if allowed else f"has similarity {reference.similarity}, allowed is {low} to {high}"


def encode_sample(sample: Sample) -> dict[str, bytes]:
    """Member name to bytes, in the order of the tar.

    Raises:
        ShardError: the key, a shape, a slot or a reference breaks the format.
    """
    _check_shapes(sample)
    check_references(sample.note)
    note = json.dumps(asdict(sample.note), ensure_ascii=False, allow_nan=False, sort_keys=True)
    label_map = sample.label_map
    members = {
        "json": note.encode(),
        "labelmap.png": label_png(label_map.reshape(-1, label_map.shape[-1])),
        "mp4": sample.mp4,
        "references.png": _png(_grid(sample.references)[..., ::-1]),
        "txt": sample.caption.encode(),
    }
    return {name: members[name] for name in MEMBERS}


def _check_shapes(sample: Sample) -> None:
    note = sample.note
    if not _KEY.fullmatch(note.key):
        raise ShardError(
            f"sample key {note.key!r}: up to {MAX_KEY} letters, digits, - and _ are allowed, dots split a key"
        )
    wanted = (len(note.frames), note.height_px, note.width_px)
    if sample.label_map.shape != wanted or sample.label_map.dtype != np.uint8:
        got = f"{sample.label_map.dtype}{list(sample.label_map.shape)}"
        raise ShardError(f"sample {note.key}: label map is {got}, the note says uint8{list(wanted)}")
    if int(sample.label_map.max(initial=0)) > len(note.cast):
        raise ShardError(
            f"sample {note.key}: label map names slot {sample.label_map.max()} of {len(note.cast)}"
        )
    if [m.slot for m in note.cast] != list(range(1, len(note.cast) + 1)) or not note.cast:
        raise ShardError(f"sample {note.key}: slots must be 1..N in order, got {[m.slot for m in note.cast]}")
    for points in (r.landmarks_px for slot in note.references for r in slot if r.landmarks_px is not None):
        if len(points) != 5 or any(len(point) != 2 for point in points):
            raise ShardError(
                f"sample {note.key}: a reference has {len(points)} landmarks; give five, x y, or none"
            )
    lengths = [len(note.cast), len(note.references), len(note.boxes_px), len(sample.references)]
    if len(set(lengths)) > 1 or any(
        len(a) != len(b) for a, b in zip(note.references, sample.references, strict=False)
    ):
        raise ShardError(
            f"sample {note.key}: cast, references, boxes and pictures differ in number: {lengths}"
        )


def _grid(references: tuple[U8, ...]) -> U8:
    columns = max(len(r) for r in references)
    grid = np.zeros((len(references), REFERENCE_PX, columns, REFERENCE_PX, 3), np.uint8)
    for row, pictures in enumerate(references):
        grid[row, :, : len(pictures)] = pictures.transpose(1, 0, 2, 3)
    return grid.reshape(len(references) * REFERENCE_PX, columns * REFERENCE_PX, 3)


def _png(image: U8) -> bytes:
    done, data = cv2.imencode(".png", np.ascontiguousarray(image), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    assert done
    return data.tobytes()


def label_png(image: U8) -> bytes:
    """u8[H,W] as a grey PNG without filters, deflated by run lengths: a map of few flat areas takes a fifth of the
    time that OpenCV's writer takes at its level 6, and four fifths of the bytes."""
    height, width = image.shape
    lines = np.zeros((height, width + 1), np.uint8)  # the first byte of a line names its filter: none
    lines[:, 1:] = image
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    data = deflate.compress(lines.data) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def decode_sample(members: dict[str, bytes]) -> Sample:
    """The sample back from its members.

    Raises:
        ShardError: a member is missing or damaged or of another size than the note says, the schema is not ours,
            or the reference rule is broken.
    """
    missing = [name for name in MEMBERS if name not in members]
    if missing:
        raise ShardError(
            f"a sample lacks {', '.join(missing)}; it has {', '.join(sorted(members)) or 'nothing'}"
        )
    note = read_note(members["json"])
    label_map = _pixels(members["labelmap.png"], note.key, cv2.IMREAD_UNCHANGED)
    wanted = (len(note.frames), note.height_px, note.width_px)
    if label_map.shape != (wanted[0] * wanted[1], wanted[2]):
        raise ShardError(
            f"sample {note.key}: labelmap.png has the shape {list(label_map.shape)}; {wanted[0]} frames of "
            f"{wanted[1]}x{wanted[2]} below each other are {[wanted[0] * wanted[1], wanted[2]]}, in grey"
        )
    references = reference_pictures(members["references.png"], note)
    sample = Sample(note, members["mp4"], label_map.reshape(wanted), references, members["txt"].decode())
    _check_shapes(sample)
    check_references(note)
    return sample


def reference_pictures(data: bytes, note: SampleNote) -> tuple[U8, ...]:
    """Per slot u8[R,112,112,3] RGB of a ``references.png``; raises ShardError where the note says otherwise."""
    grid = _pixels(data, note.key, cv2.IMREAD_COLOR_RGB)
    if not note.cast or grid.shape[0] != len(note.cast) * REFERENCE_PX or grid.shape[1] % REFERENCE_PX:
        raise ShardError(
            f"sample {note.key}: references.png is {grid.shape[1]}x{grid.shape[0]} pixels; a cast of "
            f"{len(note.cast)} has a row of {REFERENCE_PX} px each, and columns of {REFERENCE_PX} px"
        )
    cells = grid.reshape(len(note.cast), REFERENCE_PX, -1, REFERENCE_PX, 3).transpose(0, 2, 1, 3, 4)
    return tuple(cell[: len(r)].copy() for cell, r in zip(cells, note.references, strict=False))


def _pixels(data: bytes, key: str, mode: int) -> U8:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if image is None:
        raise ShardError(f"sample {key}: a picture of {len(data)} bytes is not a PNG")
    if image.dtype != np.uint8:
        raise ShardError(f"sample {key}: a picture has {image.dtype} pixels; give uint8")
    return np.asarray(image, np.uint8)


def read_note(data: bytes) -> SampleNote:
    """The note of a ``json`` member; raises ShardError where it cannot be read."""
    try:
        return note_from_json(json.loads(data))
    except ValueError as error:
        raise ShardError(f"a sample's json cannot be read: {error}") from error


def note_from_json(data: Json) -> SampleNote:
    """A SampleNote from parsed JSON.

    Raises:
        ShardError: another schema version, or fields that are missing or unknown.
    """
    if data.get("schema") not in READ:
        known = " and ".join(map(str, READ))
        raise ShardError(
            f"sample {data.get('key')}: schema {data.get('schema')}, this castbank reads {known}"
        )
    try:
        return SampleNote(**{name: _field(name, value) for name, value in data.items()})
    except TypeError as error:
        raise ShardError(f"sample {data.get('key')}: {error}") from error


def _reference(data: Json) -> ReferenceNote:
    points = data.get("landmarks_px")
    return ReferenceNote(**data | {"landmarks_px": tuple(map(tuple, points)) if points else None})


def _field(name: str, value: Any) -> Any:
    if name == "cast":
        return tuple(CastMember(**m) for m in value)
    if name == "references":
        return tuple(tuple(_reference(r) for r in slot) for slot in value)
    if name == "boxes_px":
        return tuple(tuple(None if b is None else tuple(b) for b in slot) for slot in value)
    if name == "captions":
        return Captions(**value)
    return tuple(value) if isinstance(value, list) else value
