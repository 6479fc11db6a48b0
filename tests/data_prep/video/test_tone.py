"""HDR to SDR against the published formulas, written out slowly, and against known levels."""

import math

import numpy as np
import pytest

from data_prep.video.tone import HLG, PQ, nits_to_pq, pq_to_nits, rolled_off, to_sdr


def pq(signal: float) -> float:
    """BT.2100 table 4, cd/m²."""
    power = signal ** (32 / 2523)
    return 10000 * (max(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (16384 / 2610)


def hlg(signal: float) -> float:
    """BT.2100 table 5, scene light."""
    return (
        signal**2 / 3 if signal <= 0.5 else (math.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )


def slowly(rgb: tuple[float, ...], transfer: int) -> list[float]:
    """One pixel, signal of 0..1 → 0..255."""
    if transfer == PQ:
        nits = [pq(v) for v in rgb]
    else:
        scene = [hlg(v) for v in rgb]
        luminance = 0.2627 * scene[0] + 0.678 * scene[1] + 0.0593 * scene[2]
        nits = [1000 * luminance**0.2 * v for v in scene]
    brightest = min(max(nits), 1000.0)
    gain = float(rolled_off(np.array([brightest]))[0]) / brightest / 203 if brightest > 0 else 0.0
    r, g, b = (v * gain for v in nits)
    linear = [
        1.6605 * r - 0.5876 * g - 0.0728 * b,
        -0.1246 * r + 1.1329 * g - 0.0083 * b,
        -0.0182 * r - 0.1006 * g + 1.1187 * b,
    ]
    return [255 * min(max(v, 0.0), 1.0) ** (1 / 2.4) for v in linear]


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_pixels_agree_with_the_formulas(transfer):
    rng = np.random.default_rng(3)
    image = rng.integers(0, 65536, (8, 9, 3), dtype=np.uint16)
    image[0] = np.linspace(0, 65535, 9).astype(np.uint16)[:, None]
    expected = [[slowly(tuple(pixel / 65535), transfer) for pixel in row] for row in image]
    assert np.abs(to_sdr(image, transfer) - np.array(expected)).max() < 1.0


def grey(signal: float, transfer: int) -> int:
    shown = to_sdr(np.full((1, 1, 3), round(signal * 65535), np.uint16), transfer)[0, 0]
    assert np.ptp(shown) <= 1  # grey stays grey
    return int(shown[0])


@pytest.mark.parametrize(
    ("name", "signal", "transfer", "low", "high"),
    [
        ("black", 0.0, PQ, 0, 0),
        ("18 % grey, 26 cd/m² (BT.2408)", 0.38, PQ, 105, 111),
        ("reference white, 203 cd/m²", 0.5807, PQ, 229, 233),
        ("1000 cd/m²", 0.7518, PQ, 254, 255),
        ("10000 cd/m²", 1.0, PQ, 254, 255),
        ("reference white", 0.75, HLG, 229, 233),
        ("peak", 1.0, HLG, 254, 255),
    ],
)
def test_known_levels(name, signal, transfer, low, high):
    assert low <= grey(signal, transfer) <= high, name


def test_brighter_stays_brighter_and_shadows_stay_as_they_are():
    nits = np.linspace(0.01, 1000, 5000)
    out = rolled_off(nits)
    assert (np.diff(out) > 0).all()
    np.testing.assert_allclose(out[nits < 60], nits[nits < 60], rtol=1e-9)
    assert out[-1] == pytest.approx(203, rel=1e-6)
    np.testing.assert_allclose(pq_to_nits(nits_to_pq(nits)), nits, rtol=1e-9)
