"""The Fréchet distance between features of real and of generated videos: FID of frames, FVD of windows.

Mean and covariance of both sides are accumulated, as they come, in double precision by torchmetrics, whose distance
(Heusel et al. 2017, arXiv 1706.08500, eq. 6) it is; features are in memory only while they are added. The squared
difference of two single features, which ConsisID's released code calls FID, is no such distance.
"""

from __future__ import annotations

import torch

from data_prep.records import InputError


class Frechet:
    """Features f32[n,D] of both sides, by ``add``; their distance, once each has two rows."""

    def __init__(self, name: str) -> None:
        """name: of the figure, for messages."""
        self._name = name
        self._metric: torch.nn.Module | None = None
        self._width = 0
        self.num_real = self.num_generated = 0

    def add(self, features: torch.Tensor, real: bool) -> None:
        """n more rows of one side."""
        if self._metric is None:
            self._metric, self._width = _metric(features.shape[1]), features.shape[1]
        self._metric.update(features.double(), real=real)  # type: ignore[operator]  # of a Metric
        if real:
            self.num_real += len(features)
        else:
            self.num_generated += len(features)

    def distance(self) -> float:
        """Raises InputError where a side has fewer than two rows, whose covariance is not known."""
        if self._metric is None or min(self.num_real, self.num_generated) < 2:
            raise InputError(
                f"{self._name}: {self.num_real} real and {self.num_generated} generated features came; a "
                "covariance takes two at least, and figures that are compared take thousands; give more videos"
            )
        return float(self._metric.compute())  # type: ignore[operator]

    @property
    def is_thin(self) -> bool:
        """Whether a side has no more rows than features are wide: its covariance is singular then, and the distance
        too large by an amount that depends on the number of rows."""
        return min(self.num_real, self.num_generated) <= self._width


def _metric(width: int) -> torch.nn.Module:
    from torchmetrics.image.fid import FrechetInceptionDistance

    given = torch.nn.Identity()  # rows are features already
    given.num_features = width  # type: ignore[assignment]  # which torchmetrics asks for
    metric: torch.nn.Module = FrechetInceptionDistance(feature=given)
    return metric
