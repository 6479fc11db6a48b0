"""DeepSpeed's room: the engine, the group of its ranks and its files. Nothing else imports deepspeed."""

from __future__ import annotations

import logging
import os

# A process that has asked the CUDA driver anything cannot fork children that use it, and ranks are forked:
# PyTorch counts devices through NVML, and DeepSpeed is told which accelerator there is instead of trying each.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import torch

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.ops import __compatible_ops__

from pipeline.training.engine.files import make_universal, trained_parameters
from pipeline.training.engine.group import gather, gathering, join, leave
from pipeline.training.engine.wrapped import Engine

__all__ = ["Engine", "gather", "gathering", "join", "leave", "make_universal", "trained_parameters"]

__compatible_ops__["deepspeed_shm_comm"] = False  # a minute of compilation for what training never uses
deepspeed.utils.logger.setLevel(logging.WARNING)
