"""One row of a manifest as text by column, whatever it was read from, and the Clip that it describes.

Headers are matched without regard to case, spaces, underscores and hyphens. An error about a row says where it
stands, which column it is about, what came and what is allowed.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from data_prep.ingest.archives import VIDEOS, unsafe
from data_prep.records import Captions, Clip, Consent, InputError

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
    "Summarized Description": ("summarizeddescription", "summariseddescription", "summarized", "summary"),
    "Background": ("background", "backgrounddescription"),
    "Style": ("style", "styledescription"),
    "Camera Movement": ("cameramovement", "camera"),
    "Lighting": ("lighting", "lightingdescription"),
    "Video Atmosphere": ("videoatmosphere", "atmosphere"),
    "licence": ("licence", "license"),
    "consent": ("consent",),
}
"""Column as UltraVideo (or we) spell it → its spellings in lower case without spaces, underscores, hyphens."""

SECOND_CHOICE = {
    "clip_id": ("videoid", "videopath", "filepath", "path", "file"),
    "url": ("sourcevideo", "videourl"),
    "start_time": ("start", "startsec", "startseconds"),
    "end_time": ("end", "endsec", "endseconds"),
    "Brief Description": ("text", "prompt", "description"),
}
"""Spellings that count where none of the others is there: many tables have them for something else beside."""

MOST_KEY = 64
"""Characters of a clip's id: a tar's member names hold 100, of which the window and ending take 20."""

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


@dataclass(frozen=True)
class Row:
    """One row with what an error about it must say. where: file and line; cells: column → text; headers: column →
    what it is called there."""

    where: str
    cells: Mapping[str, str]
    headers: Mapping[str, str]

    @classmethod
    def of(cls, where: str, values: Mapping[str, Any], required: Sequence[str] = tuple(REQUIRED)) -> Row:
        """From names and values, as JSON and Parquet have them; a mapping called captions is taken apart.

        Raises:
            InputError: a required column is missing, two names mean the same, or a value is no single text.
        """
        captions = values.get("captions")
        if isinstance(captions, dict):
            values = {**{name: value for name, value in values.items() if name != "captions"}, **captions}
        names = [str(name) for name in values]
        places = columns(where, names, required)
        headers = {column: names[at] for column, at in places.items()}
        row = cls(where, {}, headers)
        return cls(where, {c: row._text(c, values[name]) for c, name in headers.items()}, headers)

    def _text(self, column: str, value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, str | int | float):
            return str(value)
        wrong = Row(self.where, {column: json.dumps(value, default=str)}, self.headers)
        raise wrong.error(column, f"a {type(value).__name__}", "one text or number")

    def error(self, column: str, came: str, allowed: str) -> InputError:
        where = f"{self.where}, column {self.headers.get(column, column)!r}"
        return InputError(f"{where}: {self.cells.get(column, '')[:80]!r}: {came}; allowed: {allowed}")

    def given(self, column: str) -> bool:
        return bool(self.cells.get(column, "").strip())

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
        """The clip_id, checked to stay below the clips folder and ending as videos do."""
        text = self.cells["clip_id"].strip().replace("\\", "/")
        if unsafe(text):
            raise self.error("clip_id", "unsafe or empty path", "a path below the clips folder, without '..'")
        path = str(PurePosixPath(text))
        return path if path.lower().endswith(VIDEOS) else f"{path}.mp4"

    def consent(self) -> Consent:
        match self.cells.get("consent", "").strip().lower():
            case "" | "unknown":
                return "unknown"
            case "granted":
                return "granted"
            case "refused":
                return "refused"
        raise self.error("consent", "not a consent", "granted, unknown, refused or empty")

    def clip(self, clip_id: str, address: str, content_id: str = "") -> Clip:
        """The Clip of a row of a table, which says all of it."""
        source = self.cells["url"].strip()
        if not source:
            raise self.error("url", "empty", "the id of the source video")
        start_s, end_s = self._span_s()
        return self._clip(clip_id, address, content_id, (source, start_s, end_s))

    def clip_that_may_say_little(self, clip_id: str, address: str, content_id: str = "") -> Clip:
        """The Clip of a file with a sidecar, which may say no more than a caption. Where its source is unknown, or
        where in it the clip lies, it is a source of its own, so that no time is reckoned between it and others."""
        if self.given("url") and self.given("start_time") and self.given("end_time"):
            return self.clip(clip_id, address, content_id)
        return self._clip(clip_id, address, content_id, (clip_id, 0.0, 0.0))

    def _span_s(self) -> tuple[float, float]:
        start_s, end_s = self.time_s("start_time"), self.time_s("end_time")
        if end_s <= start_s:
            raise self.error("end_time", f"not after start_time {start_s:g} s", "a later time")
        return start_s, end_s

    def _clip(self, clip_id: str, address: str, content_id: str, place: tuple[str, float, float]) -> Clip:
        text = {name: self.cells.get(column, "").strip() for name, column in _CAPTION_COLUMNS.items()}
        return Clip(
            id=key_of(clip_id),
            source_id=place[0],
            path=address,
            start_s=place[1],
            end_s=place[2],
            fps=self._measure("fps"),
            width_px=int(self._measure("frame_width", whole=True)),
            height_px=int(self._measure("frame_height", whole=True)),
            captions=Captions(**text),
            licence=self.cells.get("licence", "").strip(),
            consent=self.consent(),
            content_id=content_id,
        )

    def _measure(self, column: str, *, whole: bool = False) -> float:
        """0 where a sidecar leaves it out."""
        return self.number(column, whole=whole) if column in self.cells else 0.0


def columns(where: str, names: Sequence[str], required: Sequence[str]) -> dict[str, int]:
    """Our column → its place among names; raises InputError for a missing one, saying which name is nearest."""
    places: dict[str, int] = {}
    plain = [re.sub(r"[\s_-]", "", name).lower() for name in names]
    for column, spellings in (REQUIRED | OPTIONAL).items():
        at = [i for i, name in enumerate(plain) if name in spellings]
        at = at or [i for i, name in enumerate(plain) if name in SECOND_CHOICE.get(column, ())]
        if len(at) > 1:
            raise InputError(f"{where}: columns {[names[i] for i in at]} all mean {column!r}; keep one")
        if at:
            places[column] = at[0]
    for column in required:
        if column not in places:
            free = [names[i] for i in range(len(names)) if i not in places.values()]
            near = difflib.get_close_matches(column, free, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? Rename it" if near else f"found {', '.join(names)[:300]}"
            raise InputError(f"{where}: column {column!r} is missing; {hint}")
    return places


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
