"""Videos of real faces with a known fault, and what each figure says of it against what it should; -s prints both.

Two people sit apart in one clip, so each lies in a tile of its own, and tiles are exchanged, doubled, blanked or
replaced by a picture that is a reference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from data_prep.faces import FaceAnalyser
from data_prep.records import U8
from pipeline.judging.evaluate import Evaluation, judge
from pipeline.judging.figures import FIGURES, character_figures, figure_of, figures
from pipeline.judging.galleries import Gallery, gallery
from pipeline.judging.sight import SeenFrame, see
from tests.judged_people import CAST, PACKS, REFERENCE_EVERY, every_nth

NORA, OSCAR = slice(86, 486), slice(480, 880)  # columns in which each sits
EVERY, FRAMES, SWAPPED_FROM = 14, 8, 5
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Films(NamedTuple):
    """Frames u8[8,540,960,3] seen: as they are, places exchanged, Nora gone, Nora twice, Oscar a still."""

    real: list[SeenFrame]
    exchanged: list[SeenFrame]
    without_nora: list[SeenFrame]
    nora_twice: list[SeenFrame]
    still: list[SeenFrame]


@pytest.fixture(scope="module")
def films(footage: Path, analyser: FaceAnalyser) -> Films:
    frames = every_nth(footage / "clips" / "cafe-01.mp4", EVERY)
    assert len(frames) == FRAMES
    changed = {name: frames.copy() for name in ("exchanged", "without_nora", "nora_twice", "still")}
    changed["exchanged"][:, :, NORA], changed["exchanged"][:, :, OSCAR] = (
        frames[:, :, OSCAR],
        frames[:, :, NORA],
    )
    changed["without_nora"][:, :, NORA] = cv2.GaussianBlur(frames[0, :, :80], (0, 0), 20).mean((0, 1))
    changed["nora_twice"][:, :, OSCAR] = frames[:, :, NORA]
    # the very frame of another clip that Oscar's third reference was cut from, with a codec's error of about 2
    picture = every_nth(footage / "clips" / "wall-03.mp4", REFERENCE_EVERY)[2]
    noise = np.random.default_rng(0).normal(0, 2, (FRAMES, 540, 310, 3))
    changed["still"][:, :, 525:835] = np.clip(picture[:, 560:870] + noise, 0, 255).astype(np.uint8)
    return Films(*(see(film, analyser, PACKS) for film in (frames, *changed.values())))


@pytest.fixture(scope="module")
def layout() -> U8:
    """Where each of CAST belongs, u8[540,960]."""
    places = np.zeros((540, 960), np.uint8)
    places[:, NORA], places[:, OSCAR] = 1, 2
    return places


@pytest.fixture(scope="module")
def takes(footage: Path, analyser: FaceAnalyser, crops: dict[str, U8]) -> tuple[Gallery, ...]:
    """References as people give them: Oscar in two pictures of different takes, one of which ``still`` shows."""
    street = every_nth(footage / "clips" / "wall-01.mp4", 20)[3]  # he is alone in it
    other = analyser.measure(street, analyser.detect(street)[0]).crop
    given = {"Nora": crops["Nora"], "Oscar": np.stack([crops["Oscar"][2], other])}
    return tuple(gallery(pack, given) for pack in PACKS)


@pytest.fixture(scope="module")
def judged(galleries: tuple[Gallery, ...], layout: U8) -> Callable[[list[SeenFrame]], Evaluation]:
    return lambda seen: judge(seen, galleries, CAST, layout, EVERY)


@pytest.fixture(scope="module")
def real(films: Films, judged: Callable[[list[SeenFrame]], Evaluation]) -> Evaluation:
    return judged(films.real)


def check(title: str, found: dict[str, float], expected: dict[str, tuple[float, float]]) -> None:
    """Print and assert figure by figure: (least, most) as it should be."""
    print(f"\n{title}")
    for name, (low, high) in expected.items():
        print(f"  {name.ljust(28)} {found[name]:8.3f}  should be {low:g} to {high:g} {figure_of(name).unit}")
    wrong = {name: found[name] for name, (low, high) in expected.items() if not low <= found[name] <= high}
    assert not wrong, title


def both(name: str, low: float, high: float) -> dict[str, tuple[float, float]]:
    return {f"{name}/{pack}": (low, high) for pack in PACKS}


def test_a_faultless_video(real: Evaluation) -> None:
    found = figures(real)
    assert {name.split("/")[0] for name in found} <= set(FIGURES)
    zero = [both(name, 0, 0) for name in ("swap_rate", "switches", "missing", "duplicates", "strangers")]
    one = [both(name, 1, 1) for name in ("coverage", "recognised", "present")]
    expected = {name: limits for rows in (*zero, *one) for name, limits in rows.items()}
    check("as it is", found, expected | both("margin_lowest", 0.2, 1) | {"faces_per_frame": (2, 2)})
    assert found["likeness/embedded"] > 0.6
    assert found["bleed/embedded"] < 0.3


@pytest.mark.parametrize("by_layout", [True, False])
def test_a_swap_at_a_known_frame(
    films: Films, galleries: tuple[Gallery, ...], layout: U8, by_layout: bool
) -> None:
    seen = films.real[:SWAPPED_FROM] + films.exchanged[SWAPPED_FROM:]
    found = figures(judge(seen, galleries, CAST, layout if by_layout else None))
    share = (FRAMES - SWAPPED_FROM) / FRAMES
    expected = both("swap_rate", share, share) | both("switches", 2000 / FRAMES, 2000 / FRAMES)
    expected |= both("missing", 0, 0) | both("present", 1, 1)
    if by_layout:  # who is found by likeness is recognised wherever he is
        expected |= both("recognised", 1 - share, 1 - share)
    check(
        f"swap at frame {SWAPPED_FROM} of {FRAMES}, {'layout' if by_layout else 'likeness'}", found, expected
    )


def test_a_missing_person(
    films: Films, judged: Callable[[list[SeenFrame]], Evaluation], real: Evaluation
) -> None:
    evaluation = judged(films.without_nora)
    expected = both("missing", 1, 1) | both("coverage", 0.5, 0.5) | both("recognised", 0.5, 0.5)
    expected |= both("strangers", 0, 0) | both("duplicates", 0, 0) | {"faces_per_frame": (1, 1)}
    check("Nora is missing", figures(evaluation), expected)
    for scores, whole in zip(evaluation.scores, real.scores, strict=True):
        assert np.isnan(scores.similarity[0]).all()
        assert scores.similarity[1, 1] == pytest.approx(whole.similarity[1, 1], abs=0.02)


def test_a_duplicated_person(films: Films, judged: Callable[[list[SeenFrame]], Evaluation]) -> None:
    evaluation = judged(films.nora_twice)
    expected = both("duplicates", 1, 1) | both("missing", 1, 1) | both("strangers", 0, 0)
    expected |= both("coverage", 1, 1) | both("recognised", 0.5, 0.5) | both("swap_rate", 0.5, 0.5)
    expected |= both("margin_lowest", -1, -0.2)
    check("Nora twice, no Oscar", figures(evaluation), expected)


def test_a_stranger(films: Films, galleries: tuple[Gallery, ...]) -> None:
    alone = judge(films.real, galleries, CAST[:1])
    check("cast of one, two in the video", figures(alone), both("strangers", 1, 1) | both("missing", 0, 0))


def test_a_pasted_still_is_liker_and_given_away(films: Films, takes: tuple[Gallery, ...], layout: U8) -> None:
    """By likeness alone the paste would win against real film of the same man."""
    pasted, film = (
        character_figures(judge(seen, takes, CAST, layout, EVERY))["Oscar"]
        for seen in (films.still, films.real)
    )
    expected = both("copy_excess", 0.01, 0.6) | both("copied", 1, 1) | both("steadiness", 0.97, 1)
    expected |= {
        "pixel_match": (0.85, 1),
        "pixel_excess": (0.2, 1),
        "yaw_range": (0, 2),
        "pitch_range": (0, 2),
    }
    check("Oscar is a reference, pasted", pasted, expected | {"expression_range": (0, 0.02)})
    check("Oscar is film", film, {"pixel_match": (-1, 0.8)})
    for name in (
        "likeness/embedded",
        "steadiness/embedded",
        "copy_excess/embedded",
        "copy_excess/embedded_alt",
    ):
        print(f"  {name}: still {pasted[name]:.3f}, film {film[name]:.3f}")
        assert pasted[name] > film[name]
    for name in ("yaw_range", "pitch_range", "expression_range"):
        print(f"  {name}: still {pasted[name]:.3f}, film {film[name]:.3f}")
        assert film[name] > 2 * pasted[name]


def test_a_blend_of_two_faces(films: Films, galleries: tuple[Gallery, ...]) -> None:
    """The face at Nora, from hers to Oscar's in steps: likeness falls, bleed rises, the margin changes its sign."""
    pairs = [frame.crops[np.argsort(frame.boxes[:, 0])].astype(np.float32) for frame in films.real[:3]]
    whole = np.ones((540, 960), np.uint8)
    print("\nblend at Nora's place: likeness to Nora, to Oscar")
    for k, one in enumerate(galleries):
        rows = []
        for level in LEVELS:
            faces = [
                ((1 - level) * nora + level * oscar).round().astype(np.uint8)[None] for nora, oscar in pairs
            ]
            seen = [SeenFrame(np.array([[0.2, 0.2, 0.5, 0.6]], np.float32), face) for face in faces]
            rows.append(judge(seen, galleries[k : k + 1], CAST, whole).scores[0].similarity[0])
            print(f"  {one.pack} {level:4.0%}: {rows[-1][0]:.3f} {rows[-1][1]:.3f}")
        to_nora, to_oscar = np.array(rows).T
        assert (np.diff(to_nora) < 0).all()
        assert (np.diff(to_oscar) > 0).all()
        assert to_nora[0] > to_oscar[0]
        assert to_nora[-1] < to_oscar[-1]
