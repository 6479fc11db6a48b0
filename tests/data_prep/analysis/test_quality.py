"""Presets on clips whose every frame is measured by hand, and what the ledger gets to say."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.analysis.quality import PRESETS, RULES, judge, limits_of
from data_prep.config import PrepareConfig, QualityConfig
from data_prep.records import AnalysedClip, Clip, FrameMeasures, InputError, Shot, Window
from data_prep.selection.samples import select


def filled(value: float, num_frames: int = 48) -> np.ndarray:
    return np.full(num_frames, value, np.float32)


GOOD = FrameMeasures(
    filled(0.01),
    filled(80),
    filled(300),
    filled(150),
    filled(3),
    filled(0.001),
    np.array([0.4, 0.4], np.float32),
)


def clip(**measures) -> AnalysedClip:
    """Two shots of 2 s of a 4K source at 12 frames a second, seen at 1280×720."""
    return AnalysedClip(
        clip=Clip("a", "film", "a.mp4", 0, 4, 12, 3840, 2160),
        width_px=1280,
        height_px=720,
        times_s=np.arange(48) / 12,
        shots=(Shot(0, 0, 24), Shot(1, 24, 48)),
        tracks=(),
        windows=(),
        pictures=replace(GOOD, **measures),
    )


def second(bad: float, good: float, count: int = 24) -> np.ndarray:
    """Bad in the first ``count`` frames of the second shot."""
    values = filled(good)
    values[24 : 24 + count] = bad
    return values


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_good_clip_passes_every_preset_and_its_numbers_are_told(preset):
    decisions = judge(clip(), QualityConfig(preset=preset))
    assert [(d.item, d.kind, d.fate, d.rule) for d in decisions] == [
        ("a-s000", "shot", "kept", ""),
        ("a-s001", "shot", "kept", ""),
    ]
    for said in ("size 2160", "length 2", "blur 150", "still 3", "small_motion 0.0015", "text 0.001"):
        assert said in decisions[0].detail


@pytest.mark.parametrize(
    ("preset", "measures", "rule", "value", "limit"),
    [
        ("ultravideo", {"clipped": second(0.13, 0)}, "bad_frames", "1", "<= 0.05"),
        ("ultravideo", {"border": second(2, 80, 3)}, "bad_frames", "0.125", "<= 0.05"),
        ("ultravideo", {"colour": second(1.1, 300)}, "bad_frames", "1", "<= 0.05"),
        ("ultravideo", {"motion_px": second(0.05, 3)}, "still", "0.05", ">= 0.1"),
        ("ultravideo", {"motion_px": second(101, 3)}, "shaken", "101", "<= 100"),
        ("ultravideo", {"text": second(0.03, np.nan, 1)}, "text", "0.03", "<= 0.02"),
        ("nemo", {"motion_px": second(1.9, 3)}, "small_motion", "0.00095", ">= 0.00098"),
        ("nemo", {"stillest_px": np.array([1, 0], np.float32)}, "still_patch", "0", ">= 1e-06"),
        ("people", {"sharpness": second(9, 150)}, "blur", "9", ">= 10"),
    ],
)
def test_what_each_preset_drops(preset, measures, rule, value, limit):
    kept, dropped = judge(clip(**measures), QualityConfig(preset=preset))
    assert kept.fate == "kept"
    assert (dropped.fate, dropped.rule, dropped.value, dropped.limit) == ("dropped", rule, value, limit)
    assert [d.fate for d in judge(clip(**measures), QualityConfig())] == ["kept", "kept"]


def test_a_few_bad_frames_are_forgiven_and_which_they_are_is_told():
    (_, shot) = judge(clip(clipped=second(0.5, 0, 1)), QualityConfig(preset="ultravideo"))
    assert (
        shot.fate == "kept"
        and "bad_frames 0.04167, " in shot.detail
        and "exposure 0.04167, borders 0" in shot.detail
    )


def test_short_and_small():
    short = replace(clip(), shots=(Shot(0, 0, 23), Shot(1, 23, 48)))
    assert [d.rule for d in judge(short, QualityConfig(preset="nemo"))] == ["length", ""]
    small = replace(clip(), clip=replace(clip().clip, width_px=320, height_px=240))
    assert {(d.rule, d.value, d.limit) for d in judge(small, QualityConfig(preset="nemo"))} == {
        ("size", "240", ">= 256")
    }
    unknown = replace(clip(), clip=replace(clip().clip, width_px=0, height_px=0))
    assert "size 720," in judge(unknown, QualityConfig())[0].detail


def test_what_was_not_measured_passes():
    nothing = {name: filled(np.nan) for name in ("sharpness", "motion_px", "text")}
    unmeasured = clip(**nothing, stillest_px=np.full(2, np.nan, np.float32))
    for preset in PRESETS:
        assert [d.fate for d in judge(unmeasured, QualityConfig(preset=preset))] == ["kept", "kept"]
    assert judge(replace(clip(), pictures=None), QualityConfig()) == []


def test_a_limit_of_ones_own_stands_over_the_presets():
    config = QualityConfig(preset="ultravideo", min_motion_px=0.0, min_sharpness=200.0)
    assert limits_of(config) == {**PRESETS["ultravideo"].limits, "min_motion_px": 0.0, "min_sharpness": 200.0}
    assert {d.rule for d in judge(clip(), config)} == {"blur"}
    assert limits_of(QualityConfig()) == {}


def test_every_limit_of_a_preset_is_a_knob_that_a_rule_or_a_bad_frame_asks():
    asked = {rule.limit for rule in RULES} | {"max_clipped", "min_border", "min_colour"}
    assert {name for preset in PRESETS.values() for name in preset.limits} <= asked
    assert asked == {name for name in vars(QualityConfig()) if name.startswith(("min_", "max_"))}


def test_windows_of_a_dropped_shot_are_dropped_with_its_rule_and_number():
    windows = tuple(
        Window(at, at, np.arange(3, dtype=np.int32) + 24 * at, b"", np.zeros((3, 4, 6), np.uint8), ())
        for at in (0, 1)
    )
    config = PrepareConfig(quality=QualityConfig(preset="people"))
    _, decisions = select(replace(clip(sharpness=second(5, 150)), windows=windows), {}, {}, config)
    found = {(d.item, d.kind): (d.fate, d.rule, d.value, d.limit, d.detail) for d in decisions}
    assert found[("a-0001", "window")] == ("dropped", "shot_blur", "5", ">= 10", "a-s001")
    assert found[("a-0000", "window")][:2] == ("dropped", "nobody")
    assert found[("a-s000", "shot")][0] == "kept" and found[("a-s001", "shot")][0] == "dropped"


def test_a_limit_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"quality.max_clipped: came 12, allowed is from -1 to 1"):
        QualityConfig(max_clipped=12)
