"""What DeepSpeed has written: read without running anything that is in it, and rewritten for other ranks."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import re
import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from deepspeed.checkpoint import ds_to_universal
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

from data_prep.records import InputError
from pipeline.training.ema import read_whole

RECORDS = (LossScaler, ZeroStageEnum, fragment_address)  # all that its checkpoints hold beside plain values
ONLY_WEIGHTS, ANYTHING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
TAG = "engine"
UNIVERSAL = "universal"


def make_universal(folder: Path) -> None:
    """Write the checkpoint of ``folder`` once more, in the form that any number of processes can load.

    Called by every rank; the first one works. Not for stage 0, whose checkpoints are the same for all.

    Raises:
        InputError: it holds what could run code.
    """
    if dist.get_rank() == 0:
        target = folder / UNIVERSAL
        shutil.rmtree(target, ignore_errors=True)  # of a conversion that was killed
        options = {
            "num_extract_workers": 1,
            "num_merge_workers": 1,
            "keep_temp_folder": False,
            "strict": True,
        }
        places = {"input_folder": str(folder / TAG), "output_folder": str(target)}
        with plain_records_only(folder), _quiet():
            ds_to_universal.main(Namespace(**places, **options, inject_missing_state=True))
    dist.barrier()


def trained_parameters(folder: Path, zero_stage: int) -> dict[str, torch.Tensor]:
    """f32 values of the trained parameters, by name in the objective, read from a checkpoint by one process: their
    moving average where it holds one.

    Raises:
        InputError: it holds what could run code.
    """
    if averages := read_whole(folder / TAG):
        return averages
    with plain_records_only(folder):
        if zero_stage == 0:
            path = folder / TAG / "mp_rank_00_model_states.pt"
            states = torch.load(path, map_location="cpu", weights_only=True)
            return {name: value.float() for name, value in states["module"].items()}
        with _quiet():
            values: dict[str, torch.Tensor] = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=TAG)
        return {name: value.clone() for name, value in values.items()}


@contextlib.contextmanager
def plain_records_only(folder: Path) -> Iterator[None]:
    """Whatever DeepSpeed asks for, its files are read without running anything that is written in them.

    It reads with ``weights_only=False``, with which a pickle may call any function; the variable overrules that.
    """
    before = {name: os.environ.pop(name, None) for name in (ONLY_WEIGHTS, ANYTHING)}
    os.environ[ONLY_WEIGHTS] = "1"
    try:
        with torch.serialization.safe_globals(list(RECORDS)):
            yield
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise InputError(
            f"checkpoint {str(folder)!r} is refused: it holds {found[1] if found else 'something'} beside tensors "
            "and DeepSpeed's own records, which castbank never writes and which could run code when it is read. "
            "Delete it to go on from the one before, and find out who has changed it"
        ) from error
    finally:
        del os.environ[ONLY_WEIGHTS]
        os.environ.update({name: value for name, value in before.items() if value is not None})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """DeepSpeed's converters chat."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
