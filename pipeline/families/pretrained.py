"""Published models in diffusers' layout: finding the folder or the hub's snapshot, checking it, loading its parts.

Nothing is read from a name: which model it is stands in the folder's own ``model_index.json`` and its parts'
``config.json``. Large parts are fetched and loaded when they are first needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from data_prep.records import InputError
from pipeline.families.fingerprints import of_files

T = TypeVar("T", bound=nn.Module)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NOTE = "pretrained.json"  # in an export: which snapshot of the hub it was trained on
SMALL = ("*.json", "*.txt", "*.model", "scheduler/*", "tokenizer/*")  # what is fetched to look at a model


@dataclass(frozen=True)
class Layout:
    """What a family's folders hold. family: its name, as in ``model.family.NAME.pretrained``; pipelines: the
    pipeline classes of diffusers that ``model_index.json`` may name; parts: part to the classes that its entry may
    name, where it matters which; example: a hub id."""

    family: str
    pipelines: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    example: str

    @property
    def knob(self) -> str:
        """The key that names the model."""
        return f"model.family.{self.family}.pretrained"


@dataclass(frozen=True)
class Pretrained:
    """One published model. name: as it was given; folder: its files, or of the hub's snapshot; commit: of the
    snapshot, empty for a folder; index: ``model_index.json``."""

    layout: Layout
    name: str
    folder: Path
    commit: str
    index: Mapping[str, Any]

    def has(self, part: str) -> bool:
        """Whether the model has this part; ``model_index.json`` says null twice where it has none."""
        entry = self.index.get(part)
        return isinstance(entry, list) and entry[-1] is not None

    def config(self, part: str) -> dict[str, Any]:
        """A part's ``config.json`` (a scheduler's ``scheduler_config.json``)."""
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return _read_json(self.folder / part / name, f"{self.layout.knob} {self.name!r}")

    def require(self, parts: Sequence[str]) -> None:
        """Raise InputError naming the parts that are missing, or of a class that the family does not know."""
        listed = (*dict.fromkeys(parts),)
        missing = [part for part in listed if not self.has(part) or not (self.folder / part).is_dir()]
        if missing:
            raise InputError(
                f"{self.layout.knob} {self.name!r}: no {', '.join(missing)} in {self.folder}; it takes a whole "
                f"model in diffusers' layout with {', '.join(listed)} (not a .safetensors file, nor one part)"
            )
        for part in listed:
            found, allowed = self.index[part][-1], self.layout.parts.get(part, ())
            if allowed and found not in allowed:
                raise InputError(
                    f"{self.layout.knob} {self.name!r}: its {part} is a {found}; this family takes "
                    f"{' or '.join(allowed)}; give another model"
                )

    def fetch(self, parts: Sequence[str]) -> None:
        """Have the parts' files on this machine: downloaded where they come from the hub and are not there yet."""
        if self.commit:
            patterns = [f"{part}/*" for part in parts]
            _snapshot(self.layout, self.name, self.commit, patterns)

    def fingerprint(self, parts: Sequence[str], *said: object) -> str:
        """Hash of the parts' files and of what else is said, see ``fingerprints.of_files``."""
        self.fetch(parts)
        files = (path for part in parts for path in (self.folder / part).rglob("*") if path.is_file())
        return of_files(files, *parts, *said)

    def load(self, part: str, kind: Any, dtype: torch.dtype | None = None) -> Any:
        """A part by ``kind.from_pretrained``, in ``dtype`` where it has weights; raises InputError where it is
        damaged."""
        self.fetch((part,))
        options = {} if dtype is None else {"torch_dtype": dtype}
        try:
            return kind.from_pretrained(self.folder / part, **options)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.layout.knob} {self.name!r}: {part} in {self.folder} cannot be loaded ({reason}); "
                "fetch the model again"
            ) from error

    def note(self, folder: Path) -> None:
        """Say in an export, which is the caller's to commit, which snapshot of the hub it goes with."""
        if self.commit:
            (folder / NOTE).write_text(json.dumps({"name": self.name, "commit": self.commit}, indent=2))


class Frozen(Generic[T]):
    """A part that is not trained: loaded when first used, for good, in eval mode and on its user's device."""

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._module: T | None = None

    @property
    def loaded(self) -> bool:
        """Whether it is in memory."""
        return self._module is not None

    def on(self, device: torch.device) -> T:
        """The module on ``device``; where accelerate offloads it (``enable_model_cpu_offload`` of diffusers), it
        moves itself when it is called, and what called before moves away."""
        if self._module is None:
            self._module = self._load().requires_grad_(False).eval()
        return self._module if hasattr(self._module, "_hf_hook") else self._module.to(device)


def find(layout: Layout, name: str, revision: str, noted: Path | None = None) -> Pretrained:
    """The model that ``name`` says: a folder, or an id of the hub at ``revision``.

    Args:
        layout: what the family takes.
        name: value of the knob.
        revision: branch, tag or commit of the hub; empty: its main branch.
        noted: an export, whose own note of the commit goes before ``revision``.

    Raises:
        InputError: nothing there, the hub cannot be reached, or it is another kind of model.
    """
    if not name:
        raise InputError(f"{layout.knob} is empty; give a folder or a hub id such as {layout.example}")
    folder, commit = Path(name).expanduser(), ""
    if not folder.exists():
        folder = _snapshot(layout, name, _commit_of(noted, name) or revision or "main", SMALL)
        commit = folder.name
    said = f"{layout.knob} {name!r}"
    if not (folder / "model_index.json").is_file():
        raise InputError(
            f"{said}: no model_index.json in {folder}; give the folder of a whole model in diffusers' layout, such "
            f"as {layout.example}"
        )
    index = _read_json(folder / "model_index.json", said)
    kind = index.get("_class_name")
    if kind not in layout.pipelines:
        raise InputError(
            f"{said} is a {kind}; family {layout.family} takes {' or '.join(layout.pipelines)}; give another model "
            "or set model.family.name"
        )
    return Pretrained(layout, name, folder, commit, index)


def _snapshot(layout: Layout, name: str, revision: str, patterns: Sequence[str]) -> Path:
    """The hub's snapshot with at least the files of these patterns."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{layout.knob} {name!r}: no such folder here, and not to be had from the hub at revision {revision!r} "
            f"({reason}); correct it, or where there is a network run: hf download {name} --local-dir FOLDER, and "
            "give FOLDER"
        ) from error


def _commit_of(export: Path | None, name: str) -> str:
    """The commit that an export notes for this model; empty where it notes none."""
    if export is None or not (export / NOTE).is_file():
        return ""
    note = _read_json(export / NOTE, str(export))
    return str(note["commit"]) if note.get("name") == name else ""


def _read_json(path: Path, said: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{said}: {path} cannot be read ({error}); fetch the model again") from error
    if not isinstance(found, dict):
        raise InputError(f"{said}: {path} is not a JSON object; fetch the model again")
    return found
