"""One video that is asked for: checked, drawn, and written with its contact sheet and a note that repeats it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shlex
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.atomic import write_atomic
from data_prep.records import InputError, Progress
from jobs import config as configs
from jobs.layouts import read_anchor, read_layouts, read_picture
from pipeline.config import GenerateConfig

if TYPE_CHECKING:
    from pipeline.generate import LoadedRun, Scene
    from pipeline.strategies.drawing import Drawn

TOKEN = re.compile(r"<person-\d+>")  # what training's captions call the k-th of the cast


@dataclass(frozen=True)
class Request:
    """A video. run, bank: whose model and characters; references: names with a picture each, of people who are not
    in the bank; layout, anchor: files; keep_last: whether its last frame is kept as a picture, for what follows."""

    run: Path
    prompt: str
    cast: tuple[str, ...]
    output: Path
    config: GenerateConfig
    bank: Path | None = None
    references: tuple[tuple[str, Path], ...] = ()
    layout: Path | None = None
    anchor: Path | None = None
    keep_last: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The cast by slot; without one those who are given by pictures, in the order they came."""
        return self.cast or tuple(dict.fromkeys(name for name, _ in self.references))

    @property
    def last_frame(self) -> Path:
        """Where the last frame is kept."""
        return self.output.with_suffix(".last.png")


def check_request(request: Request) -> None:
    """Raise InputError for a prompt that speaks of nobody of its cast."""
    spoken = request.prompt.casefold()
    if not request.names or TOKEN.search(request.prompt):
        return
    if not any(re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", spoken) for name in request.names):
        raise InputError(
            f"prompt: {request.prompt[:60]!r} names nobody of the cast ({', '.join(request.names)}); say who does "
            "what by name, or <person-1>, <person-2> by slot, as the captions of training do"
        )


def open_run(run: Path, bank: Path | None) -> LoadedRun:
    """The model, on a GPU where there is one, and whom it knows."""
    import torch

    from pipeline import generate

    loaded = generate.load_run(run, bank)
    loaded.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return loaded


def scene_of(loaded: LoadedRun, request: Request) -> Scene:
    """What is to be seen; raises InputError for names, pictures and layouts that do not fit."""
    from pipeline import generate
    from pipeline.generating.references import with_references

    given: dict[str, list[Any]] = {}
    for name, path in request.references:
        given.setdefault(name, []).append(read_picture("--reference", path))
    if given:
        loaded = dataclasses.replace(loaded, bank=with_references(loaded, given))
    layout = None
    if request.layout is not None:
        layout = read_layouts(request.layout, request.names, request.config)
    anchor = None if request.anchor is None else read_anchor(request.anchor)
    scene = generate.scene_of(loaded, request.prompt, request.names)
    return dataclasses.replace(scene, layout=layout, anchor=anchor)


def draw(loaded: LoadedRun, request: Request, progress: Progress) -> Drawn:
    """Draw and write it: mp4, contact sheet, pictures drawn on the way and, last, the note."""
    from pipeline.strategies import drawing

    scene = scene_of(loaded, request)
    drawn = drawing.draw(loaded.model, scene, request.config, progress, key_of(request.config))
    _write(request, drawn)
    return drawn


def is_done(request: Request) -> bool:
    """Whether its files are there, whole, and of the very same request."""
    path = request.output.with_suffix(".json")
    if not (path.is_file() and request.output.is_file()):
        return False
    if request.keep_last and not request.last_frame.is_file():
        return False
    if request.anchor is not None and not request.anchor.is_file():
        return False
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    wanted = json.loads(json.dumps(asked(request)))
    same = isinstance(note, dict) and all(note.get(key) == value for key, value in wanted.items())
    return same and note.get("video_sha256") == sha256_of(request.output)


def key_of(config: GenerateConfig) -> str:
    """The key of an endpoint that rewrites prompts, itself. Raises InputError where its place holds none."""
    from jobs.dashboard_stores import referenced

    place = config.strategy.rewriter_key
    return referenced("strategy.rewriter_key", place) if place else ""


def _write(request: Request, drawn: Drawn) -> None:
    import cv2

    from data_prep.video.encode import encode_mp4
    from pipeline.generate import contact_sheet

    video = encode_mp4(drawn.frames, request.config.fps)
    pictures = {".png": contact_sheet(drawn.frames)}
    pictures |= {f".{name}.png": picture for name, picture in drawn.pictures.items()}
    if request.keep_last:
        pictures[".last.png"] = drawn.frames[-1]
    files = {".mp4": video}
    for suffix, picture in pictures.items():
        encoded, png = cv2.imencode(".png", picture[..., ::-1])
        assert encoded
        files[suffix] = png.tobytes()
    repeated = request
    if (
        request.config.strategy.rewriter == "endpoint" and "anchor" in drawn.pictures
    ):  # it may answer otherwise
        repeated = dataclasses.replace(request, anchor=request.output.with_suffix(".anchor.png"))
    note = {"command": command_of(repeated), **asked(request)}
    note |= {
        "video_sha256": hashlib.sha256(video).hexdigest(),
        "num_steps": drawn.num_steps,
        "drawn": drawn.notes,
    }
    files[".json"] = json.dumps(note, indent=2, ensure_ascii=False).encode()
    for suffix, content in files.items():
        write_atomic(request.output.with_suffix(suffix), content)


def asked(request: Request) -> dict[str, Any]:
    """All that the video depends on: values in force, hashes of what went in, versions."""
    export = request.run / "export" if (request.run / "export").is_dir() else request.run
    config, bank = dataclasses.asdict(request.config), None
    if math.isinf(request.config.strategy.bias):
        config["strategy"]["bias"] = "inf"  # JSON has no such number
    if request.bank is not None:
        from pipeline.identity.bank import MANIFEST, find_bank

        bank = sha256_of(find_bank(request.bank) / MANIFEST)
    return {
        "prompt": request.prompt,
        "cast": list(request.names),
        "references": [[name, sha256_of(path)] for name, path in request.references],
        "layout_sha256": _layout_sha256(request.layout) if request.layout else None,
        "anchor_sha256": sha256_of(request.anchor) if request.anchor else None,
        "config": config,
        "bank_sha256": bank,
        "model_sha256": _model_sha256(export.absolute()),
        "versions": {name: version(name) for name in ("torch", "diffusers", "av")},
    }


def command_of(request: Request) -> str:
    """castbank's words for it."""
    words = ["castbank", "generate", str(request.run)]
    words += [f"{key}={value}" for key, value in configs.flat(request.config).items() if value != ""]
    words += ["--prompt", request.prompt, "--output", str(request.output)]
    words += ["--cast", ",".join(request.cast)] if request.cast else []
    for name, path in request.references:
        words += ["--reference", f"{name}={path}"]
    for option, place in (("layout", request.layout), ("bank", request.bank), ("anchor", request.anchor)):
        words += [f"--{option}", str(place)] if place else []
    return shlex.join(words)


def sha256_of(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _layout_sha256(path: Path) -> str:
    """Of a layout's file, or of the files of its folder in their order."""
    if path.is_file():
        return sha256_of(path)
    return hashlib.sha256(
        "".join(sha256_of(p) for p in sorted(path.iterdir()) if p.is_file()).encode()
    ).hexdigest()


@lru_cache(maxsize=4)
def _model_sha256(export: Path) -> dict[str, str]:
    """Of an export's files; read once by a process, as it may be many gigabytes."""
    return {str(p.relative_to(export)): sha256_of(p) for p in sorted(export.rglob("*")) if p.is_file()}
