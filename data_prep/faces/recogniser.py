"""From aligned face crops to embeddings, with one pack's recogniser and nothing else in memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.faces.packs import InstalledPack, find_pack
from data_prep.records import F32, U8, InputError


class Recogniser:
    """The recogniser of an installed pack."""

    def __init__(self, pack: InstalledPack, threads: int = 1, model: Any = None) -> None:
        """``model`` is insightface's loaded ArcFaceONNX where one exists already."""
        self.pack = pack
        self._model = model or _load(pack, threads)

    def embed(self, crops: U8) -> tuple[F32, F32]:
        """Embed u8[n,112,112,3] RGB crops: unit rows f32[n,D] and their lengths before normalising f32[n].

        Raises InputError on another shape or type.
        """
        if crops.dtype != np.uint8 or crops.ndim != 4 or crops.shape[1:] != (112, 112, 3):
            raise InputError(
                f"crops: came {crops.dtype}{list(crops.shape)}, expected uint8[n,112,112,3] (RGB)."
            )
        # One at a time: the embedded graph has its batch of 1 written into a Reshape, and a CPU gains nothing.
        rows = [self._model.get_feat(np.ascontiguousarray(crop[..., ::-1]))[0] for crop in crops]
        raw = np.asarray(rows, np.float32).reshape(len(crops), self.pack.spec.dim)
        norms = np.linalg.norm(raw, axis=1)
        return np.asarray(raw / np.maximum(norms, 1e-9)[:, None], np.float32), np.asarray(norms, np.float32)


@cache
def recogniser_for(pack: str, home: Path | None = None) -> Recogniser:
    """One recogniser per process and pack."""
    return Recogniser(find_pack(pack, home))


def embed_crops(pack: str, crops: U8, home: Path | None = None) -> tuple[F32, F32]:
    """``Recogniser.embed`` with the pack named; loads its recogniser once per process."""
    return recogniser_for(pack, home).embed(crops)


def session_options(threads: int) -> Any:
    """ONNX Runtime takes every core unless told; our parallelism is one process per core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return options


def _load(pack: InstalledPack, threads: int) -> Any:
    from insightface.model_zoo import get_model

    return get_model(str(pack.recogniser), sess_options=session_options(threads))
