"""The Fréchet distance as its authors' code has it, on numpy's covariance and scipy's square root of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg


def plain(real: Any, made: Any) -> float:
    """Heusel et al. 2017, eq. 6, between the rows of two arrays [n,D]."""
    covariances = [np.cov(side.astype(np.float64), rowvar=False) for side in (real, made)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    apart = ((real.astype(np.float64).mean(0) - made.astype(np.float64).mean(0)) ** 2).sum()
    return float(apart + sum(np.trace(one) for one in covariances) - 2 * np.trace(root.real))
