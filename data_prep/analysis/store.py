"""An AnalysedClip as a folder of plain files: JSON, npz without pickle, and the windows' mp4s as they are.

    analysis.json   schema, clip, shots, decisions, ids, sizes
    tracks.npz      times_s, and every track's arrays under <track's place>/<field>
    pictures.npz    what every frame looks like; not there where nothing was decoded
    crops.npz       the tracks' reference candidates
    windows.npz     frames and label maps, compressed (they are nearly all zero)
    w000.mp4 …      one file per window

Parts are read only where asked for, since linking needs tracks of every clip at once and nothing else of them.
Equal records give equal bytes. The caller writes to a folder aside and renames it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.records import (
    AnalysedClip,
    Captions,
    Clip,
    Decision,
    FaceTrack,
    FrameMeasures,
    InputError,
    Shot,
    Window,
)

SCHEMA = 3
"""Raised whenever an old folder would be read wrongly."""

PICTURES = "pictures.npz"
_NAMES = ("id", "clip_id", "shot")
_CROPS = ("crop_frames", "crops")
_ARRAYS = tuple(f.name for f in fields(FaceTrack) if f.name not in _NAMES + _CROPS)


def save(analysed: AnalysedClip, folder: Path) -> None:
    """Writes every file into an existing, empty folder."""
    tracks = list(enumerate(analysed.tracks))
    windows = list(enumerate(analysed.windows))
    arrays = {f"{i}/{name}": getattr(t, name) for i, t in tracks for name in _ARRAYS}
    np.savez(folder / "tracks.npz", times_s=analysed.times_s, **arrays)
    np.savez(folder / "crops.npz", **{f"{i}/{name}": getattr(t, name) for i, t in tracks for name in _CROPS})
    maps = {f"{i}/{name}": getattr(w, name) for i, w in windows for name in ("frames", "track_map")}
    np.savez_compressed(folder / "windows.npz", **maps)
    if analysed.pictures is not None:
        np.savez(folder / PICTURES, **vars(analysed.pictures))
    for i, window in windows:
        (folder / f"w{i:03d}.mp4").write_bytes(window.mp4)
    header = {
        "schema": SCHEMA,
        "clip": asdict(analysed.clip),
        "width_px": analysed.width_px,
        "height_px": analysed.height_px,
        "shots": [asdict(shot) for shot in analysed.shots],
        "tracks": [{name: getattr(t, name) for name in _NAMES} for _, t in tracks],
        "windows": [{"index": w.index, "shot": w.shot, "tracks": w.tracks} for _, w in windows],
        "decisions": [asdict(decision) for decision in analysed.decisions],
        "decoder": analysed.decoder,
        "medium": analysed.medium,
        "fingerprint": analysed.fingerprint,
    }
    (folder / "analysis.json").write_text(json.dumps(header, indent=1, ensure_ascii=False), encoding="utf-8")


def load(folder: Path, *, crops: bool = True, windows: bool = True) -> AnalysedClip:
    """The saved record. Without ``crops`` tracks have none (0 rows); without ``windows`` there are no windows.

    Raises InputError where the folder was written by another version.
    """
    header = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
    if header["schema"] != SCHEMA:
        raise InputError(
            f"{folder}: analysis of schema {header['schema']}, this version reads {SCHEMA}; delete the folder and "
            "run prepare again"
        )
    clip = Clip(**header["clip"] | {"captions": Captions(**header["clip"]["captions"])})
    with np.load(folder / "tracks.npz", allow_pickle=False) as arrays:
        faces = _arrays(folder / "crops.npz") if crops else {}
        tracks = tuple(
            _track(names, {name: arrays[f"{i}/{name}"] for name in _ARRAYS}, faces, i)
            for i, names in enumerate(header["tracks"])
        )
        times_s = arrays["times_s"]
    return AnalysedClip(
        clip=clip,
        width_px=header["width_px"],
        height_px=header["height_px"],
        times_s=times_s,
        shots=tuple(Shot(**shot) for shot in header["shots"]),
        tracks=tracks,
        windows=_windows(folder, header["windows"]) if windows else (),
        decisions=tuple(Decision(**decision) for decision in header["decisions"]),
        decoder=header["decoder"],
        medium=header["medium"],
        fingerprint=header["fingerprint"],
        pictures=FrameMeasures(**_arrays(folder / PICTURES)) if (folder / PICTURES).is_file() else None,
    )


def load_window(folder: Path, place: int) -> Window:
    """One window by its place among the clip's windows, so that packing holds no more than it writes."""
    header = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
    with np.load(folder / "windows.npz", allow_pickle=False) as maps:
        return _window(folder, header["windows"][place], maps, place)


def _track(
    names: dict[str, Any], arrays: dict[str, npt.NDArray[Any]], faces: dict[str, npt.NDArray[Any]], i: int
) -> FaceTrack:
    crop_frames = faces.get(f"{i}/crop_frames", np.zeros(0, np.int32))
    crops = faces.get(f"{i}/crops", np.zeros((0, 112, 112, 3), np.uint8))
    values: dict[str, Any] = names | arrays
    return FaceTrack(**values, crop_frames=crop_frames, crops=crops)


def _windows(folder: Path, headers: list[dict[str, Any]]) -> tuple[Window, ...]:
    with np.load(folder / "windows.npz", allow_pickle=False) as maps:
        return tuple(_window(folder, header, maps, i) for i, header in enumerate(headers))


def _window(folder: Path, header: dict[str, Any], maps: Any, i: int) -> Window:
    return Window(
        index=header["index"],
        shot=header["shot"],
        frames=maps[f"{i}/frames"],
        mp4=(folder / f"w{i:03d}.mp4").read_bytes(),
        track_map=maps[f"{i}/track_map"],
        tracks=tuple(header["tracks"]),
    )


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
