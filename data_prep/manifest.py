"""Reads an UltraVideo-style CSV into Clips.

Headers are matched without regard to case, spaces and underscores. What is wrong with the file as a whole or with
the type of a cell stops the run with an InputError that names line, column, value and what is allowed; what is
wrong with one clip (its file is absent, a person refused consent) is a Decision, and the other clips go on.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.records import Captions, Clip, Consent, Decision, InputError

REQUIRED = {
    "clip_id": ("clipid", "clip", "video", "filename"),
    "url": ("url", "sourceid", "source"),
    "fps": ("fps", "framerate"),
    "frame_width": ("framewidth", "width"),
    "frame_height": ("frameheight", "height"),
    "start_time": ("starttime", "starts"),
    "end_time": ("endtime", "ends"),
    "Brief Description": ("briefdescription", "brief", "caption"),
}
OPTIONAL = {
    "Detailed Description": ("detaileddescription", "detailed"),
    "Theme Description": ("themedescription", "theme"),
    "Shot Type": ("shottype",),
    "Summarized Description": ("summarizeddescription", "summariseddescription", "summary"),
    "Background": ("background", "backgrounddescription"),
    "Style": ("style", "styledescription"),
    "Camera Movement": ("cameramovement", "camera"),
    "Lighting": ("lighting", "lightingdescription"),
    "Video Atmosphere": ("videoatmosphere", "atmosphere"),
    "licence": ("licence", "license"),
    "consent": ("consent",),
}
"""Column as UltraVideo (or we) spell it → its spellings in lower case without spaces, underscores, hyphens."""


MOST_KEY = (
    64  # characters of a clip's id: a tar's member names hold 100, of which the window and ending take 20
)


def read_clips(csv_path: Path, clips_folder: Path) -> tuple[list[Clip], list[Decision]]:
    """The clips of a manifest in its order, and the fate of every row that gives none.

    ``clip_id`` is a path relative to ``clips_folder``, or the name of a file anywhere below it (UltraVideo's
    archives nest their folders). Raises InputError for a file that is no manifest, a missing column, a cell of
    the wrong type, an unsafe path and a duplicate clip_id.
    """
    finder = _Finder(clips_folder)
    clips: list[Clip] = []
    decisions: list[Decision] = []
    seen: dict[str, int] = {}
    for row in _rows(csv_path):
        clip_id = row.clip_id()
        key = key_of(clip_id)
        if key in seen:
            raise row.error(
                "clip_id", f"also in line {seen[key]}", "each clip_id once; remove one of the two"
            )
        seen[key] = row.line
        found = finder.find(row, clip_id)
        clip = row.clip(clip_id, found or clips_folder / clip_id)
        if clip.consent == "refused":
            decisions.append(_dropped(clip, "consent_refused", "refused", "granted or unknown"))
        elif found is None:
            decisions.append(_dropped(clip, "file_missing", clip_id, f"a file below {clips_folder}"))
        else:
            clips.append(clip)
    if not seen:
        raise InputError(f"{csv_path}: no rows after the header; at least one clip is needed")
    return clips, decisions


def _dropped(clip: Clip, rule: str, value: str, limit: str) -> Decision:
    return Decision(clip.id, "clip", "dropped", "ingest", rule, value, limit)


def key_of(clip_id: str) -> str:
    """A clip's id free of dots and slashes: the path without .mp4 where that is plain and short, else made so and
    ended by 8 hex digits of the original's sha256, so that ``a/b`` and ``a.b`` stay two."""
    stem = re.sub(r"\.mp4$", "", clip_id, flags=re.IGNORECASE)
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", stem)
    if plain == stem and len(plain) <= MOST_KEY:
        return plain
    return f"{plain[: MOST_KEY - 9]}-{hashlib.sha256(clip_id.encode()).hexdigest()[:8]}"


def seconds(text: str) -> float:
    """Seconds from ``12.5`` or ``[HH:]MM:SS[.mmm]``. Raises ValueError for anything else or a negative time."""
    total = 0.0
    for part in text.strip().split(":"):
        total = total * 60 + float(part)
    if not math.isfinite(total) or "-" in text or text.count(":") > 2:
        raise ValueError(text)
    return total


@dataclass(frozen=True)
class _Row:
    """One row of the manifest with what an error about it must say. cells: column → text."""

    path: Path
    line: int
    cells: dict[str, str]
    headers: dict[str, str]

    def error(self, column: str, came: str, allowed: str) -> InputError:
        where = f"{self.path}, line {self.line}, column {self.headers.get(column, column)!r}"
        return InputError(f"{where}: {self.cells.get(column, '')[:80]!r}: {came}; allowed: {allowed}")

    def number(self, column: str, *, whole: bool = False) -> float:
        allowed = "a whole number above 0" if whole else "a number above 0"
        try:
            value = float(self.cells[column])
        except ValueError:
            raise self.error(column, "not a number", allowed) from None
        if not (math.isfinite(value) and value > 0) or (whole and value != int(value)):
            raise self.error(column, "out of range", allowed)
        return value

    def time_s(self, column: str) -> float:
        try:
            return seconds(self.cells[column])
        except ValueError:
            raise self.error(column, "not a time", "seconds (12.5) or HH:MM:SS.mmm") from None

    def clip_id(self) -> str:
        """The clip_id, checked to stay below the clips folder and ending in .mp4."""
        text = self.cells["clip_id"].strip().replace("\\", "/")
        parts = PurePosixPath(text).parts
        if not parts or text.startswith("/") or ".." in parts or not text.isprintable() or ":" in parts[0]:
            raise self.error("clip_id", "unsafe or empty path", "a path below the clips folder, without '..'")
        return str(PurePosixPath(text)) if text.lower().endswith(".mp4") else f"{PurePosixPath(text)}.mp4"

    def consent(self) -> Consent:
        match self.cells.get("consent", "").strip().lower():
            case "" | "unknown":
                return "unknown"
            case "granted":
                return "granted"
            case "refused":
                return "refused"
        raise self.error("consent", "not a consent", "granted, unknown, refused or empty")

    def clip(self, clip_id: str, path: Path) -> Clip:
        start_s, end_s = self.time_s("start_time"), self.time_s("end_time")
        if end_s <= start_s:
            raise self.error("end_time", f"not after start_time {start_s:g} s", "a later time")
        source = self.cells["url"].strip()
        if not source:
            raise self.error("url", "empty", "the id of the source video")
        text = {name: self.cells.get(column, "").strip() for name, column in _CAPTION_COLUMNS.items()}
        return Clip(
            id=key_of(clip_id),
            source_id=source,
            path=str(path),
            start_s=start_s,
            end_s=end_s,
            fps=self.number("fps"),
            width_px=int(self.number("frame_width", whole=True)),
            height_px=int(self.number("frame_height", whole=True)),
            captions=Captions(**text),
            licence=self.cells.get("licence", "").strip(),
            consent=self.consent(),
        )


_CAPTION_COLUMNS = {
    "brief": "Brief Description",
    "detailed": "Detailed Description",
    "theme": "Theme Description",
    "shot_type": "Shot Type",
    "summarized": "Summarized Description",
    "background": "Background",
    "style": "Style",
    "camera_movement": "Camera Movement",
    "lighting": "Lighting",
    "atmosphere": "Video Atmosphere",
}


def _rows(path: Path) -> Iterator[_Row]:
    """Every row that is not blank. Captions of UltraVideo exceed csv's field limit, which is global: put back."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"manifest {path} {what}; give a CSV file with the columns {', '.join(REQUIRED)}")
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if not header:
                raise InputError(f"manifest {path} is empty; expected a header with {', '.join(REQUIRED)}")
            columns = _columns(path, header)
            line = reader.line_num + 1
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield _row(path, line, cells, header, columns)
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(
            f"manifest {path} is not UTF-8 text ({error.reason}); save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        raise InputError(
            f"manifest {path}, line {reader.line_num}: {error}; not a well-formed CSV"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _row(path: Path, line: int, cells: list[str], header: list[str], columns: dict[str, int]) -> _Row:
    if len(cells) != len(header):
        raise InputError(
            f"manifest {path}, line {line}: {len(cells)} cells where the header has {len(header)}; "
            "quote cells that contain commas"
        )
    return _Row(
        path, line, {c: cells[at] for c, at in columns.items()}, {c: header[at] for c, at in columns.items()}
    )


def _columns(path: Path, header: list[str]) -> dict[str, int]:
    """Our column → its place in the header; raises InputError for a missing one, naming the nearest header."""
    places: dict[str, int] = {}
    plain = [re.sub(r"[\s_-]", "", name).lower() for name in header]
    for column, spellings in (REQUIRED | OPTIONAL).items():
        at = [i for i, name in enumerate(plain) if name in spellings]
        if len(at) > 1:
            raise InputError(
                f"manifest {path}: columns {[header[i] for i in at]} all mean {column!r}; keep one"
            )
        if at:
            places[column] = at[0]
    for column in REQUIRED:
        if column not in places:
            free = [header[i] for i in range(len(header)) if i not in places.values()]
            near = difflib.get_close_matches(column, free, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? Rename it" if near else f"found {', '.join(header)[:300]}"
            raise InputError(f"manifest {path}, line 1: column {column!r} is missing; {hint}")
    return places


class _Finder:
    """Finds a clip's file by its path below the folder, else by its bare name anywhere below (indexed once)."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(
                f"clips folder {folder} does not exist; give the folder that clip_id is relative to"
            )
        self._folder = folder
        self._by_name: dict[str, list[Path]] | None = None

    def find(self, row: _Row, clip_id: str) -> Path | None:
        direct = self._folder / clip_id
        if direct.is_file():
            return direct
        if "/" in clip_id:
            return None
        if self._by_name is None:
            self._by_name = {}
            for path in sorted(self._folder.rglob("*.mp4")):
                if path.is_file():
                    self._by_name.setdefault(path.name, []).append(path)
        paths = self._by_name.get(clip_id, [])
        if len(paths) > 1:
            raise row.error(
                "clip_id", f"two files have this name: {paths[0]}, {paths[1]}", "the relative path"
            )
        return paths[0] if paths else None
