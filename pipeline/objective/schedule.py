"""Coarse to fine: how much of the fine path and of the losses that go with it counts, by how far a run has come.

ConsisID (arXiv 2411.17440), section 3.3, first learns with its global facial extractor, whose pictures and
landmarks tell of contours and proportions, and then with its local one, whose attention brings the details. No
such schedule was found in what was read of its released code, which has flags such as ``is_train_face``. Here they
are phases of one run, with a linear passage between them, and a pure function of the step, so that a resumed run
goes on exactly.
"""

from __future__ import annotations

import torch

from pipeline.config import ScheduleConfig


def fine_share(config: ScheduleConfig, progress: torch.Tensor) -> torch.Tensor:
    """f32[B] in [0,1]: 0 in the coarse phase, then linearly to 1.

    progress: f64[B] share of the run's steps that are done, in [0,1].
    """
    after = progress - config.coarse
    if config.fade_in == 0:
        return (after >= 0).float()
    return (after / config.fade_in).clamp(0, 1).float()
