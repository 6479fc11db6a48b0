"""HDR pictures (PQ or HLG, BT.2020) as the SDR ones (BT.709) that face networks and video models know.

To display light by ITU-R BT.2100-2, tables 4 and 5; its highlights rolled off by the EETF of ITU-R BT.2390-11,
section 5.4.1, from a display of 1,000 cd/m² to SDR's white, which is HDR's reference white of 203 cd/m²
(BT.2408-7); then to BT.709's primaries (BT.2087-0) and through the inverse of BT.1886. Reference white comes out
as 231 of 255.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.records import F32, F64, U8

PQ, HLG = 16, 18
"""ITU-T H.273 transfer characteristics."""

PEAK_NITS, WHITE_NITS = 1000.0, 203.0
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_CODES = 65535
_ROOT = 4  # tables over light are indexed by its fourth root, so that the dark half is not ten entries


def to_sdr(image: npt.NDArray[np.uint16], transfer: int) -> U8:
    """u16[H,W,3] RGB signal of 0..65535 → u8[H,W,3] RGB. ``transfer``: PQ or HLG."""
    light = _light_table(transfer)[image]
    if transfer == HLG:
        scene = (light @ LUMINANCE)[..., None]
        light = light * PEAK_NITS * scene**0.2
    brightest = np.minimum(light.max(2), PEAK_NITS)
    light *= _gains()[_index(brightest / PEAK_NITS)][..., None]
    shown = np.clip(cv2.transform(light, BT2020_TO_BT709), 0.0, 1.0)
    return np.asarray(_signals()[_index(shown)], np.uint8)


def _index(share: F32) -> npt.NDArray[np.uint16]:
    root: Any = np.sqrt(np.sqrt(share))
    return np.asarray(root * _CODES + 0.5, np.uint16)


@lru_cache(2)
def _light_table(transfer: int) -> F32:
    """f32[65536]: cd/m² of each PQ code, or the scene light, 0..1, of each HLG code."""
    signal = np.arange(_CODES + 1) / _CODES
    if transfer == PQ:
        return np.asarray(pq_to_nits(signal), np.float32)
    low, high = signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12
    return np.asarray(np.where(signal <= 0.5, low, high), np.float32)


@lru_cache(1)
def _gains() -> F32:
    """f32[65536]: what light is multiplied by to be a share of SDR's white, by its index."""
    nits = (np.arange(_CODES + 1) / _CODES) ** _ROOT * PEAK_NITS
    nits[0] = nits[1]
    return np.asarray(rolled_off(nits) / nits / WHITE_NITS, np.float32)


@lru_cache(1)
def _signals() -> U8:
    """u8[65536]: BT.1886's signal for each share of white, by its index."""
    share = (np.arange(_CODES + 1) / _CODES) ** _ROOT
    return np.asarray(np.rint(share ** (1 / 2.4) * 255), np.uint8)


def rolled_off(nits: F64) -> F64:
    """cd/m² on the SDR display for cd/m² on the HDR one: equal below the knee, a Hermite spline above."""
    whole = nits_to_pq(np.array(PEAK_NITS))
    signal, top = nits_to_pq(nits) / whole, float(nits_to_pq(np.array(WHITE_NITS)) / whole)
    knee = 1.5 * top - 0.5
    t = np.clip((signal - knee) / (1 - knee), 0.0, 1.0)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    )
    return pq_to_nits(np.where(signal < knee, signal, spline) * whole)


def pq_to_nits(signal: F64) -> F64:
    """SMPTE ST 2084: signal of 0..1 → cd/m²."""
    root = signal ** (1 / _M2)
    return np.asarray(10000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1))


def nits_to_pq(nits: F64) -> F64:
    """The inverse of ``pq_to_nits``."""
    power = (nits / 10000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2)
