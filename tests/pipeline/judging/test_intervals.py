"""Intervals and paired comparison: against Student's, against simulated truth, and on known differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from pipeline.judging.intervals import compare, interval, intervals


def rows(values: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """By video: the k-th value of each figure."""
    count = len(next(iter(values.values())))
    return {f"seed {k}": {name: series[k] for name, series in values.items()} for k in range(count)}


def test_an_interval_agrees_with_students_where_that_is_exact() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 60)
    found = interval(values)
    half = student.ppf(0.975, 59) * values.std(ddof=1) / np.sqrt(60)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_truth_lies_in_nearly_all_intervals() -> None:
    generator = np.random.default_rng(2)
    found = [interval(generator.normal(0, 1, 20)) for _ in range(60)]
    assert sum(one.low <= 0 <= one.high for one in found) >= 51  # 95 % of 60 are 57


def test_one_video_has_no_interval_and_equal_ones_have_no_width() -> None:
    assert np.isnan(interval([0.4]).low)
    assert interval([0.4]).num == 1
    same = interval([0.25, 0.25, 0.25])
    assert (same.low, same.mean, same.high) == (0.25, 0.25, 0.25)
    assert np.isnan(interval([float("nan")]).mean)


def test_a_video_without_the_figure_is_not_counted() -> None:
    found = intervals(
        [{"coverage/a": 1.0}, {"coverage/a": float("nan")}, {"coverage/a": 0.5, "margin/a": 0.1}]
    )
    assert found["coverage/a"].num == 2
    assert found["margin/a"].num == 1


def test_a_small_but_steady_gain_is_found_though_the_videos_differ_much_more() -> None:
    generator = np.random.default_rng(3)
    prompts = generator.uniform(0.2, 0.8, 12)
    gain = 0.03 + generator.normal(0, 0.01, 12)
    a, b = rows({"likeness/x": [*prompts]}), rows({"likeness/x": [*(prompts + gain)]})
    (found,) = compare(a, b)
    assert found.verdict == "better"
    assert found.difference.low > 0
    assert found.wilcoxon_p == pytest.approx(2 / 2**12)  # all twelve rise
    assert found.sign_p == pytest.approx(2 / 2**12)
    assert "B is better than A" in found.in_words()
    assert compare(b, a)[0].verdict == "worse"


def test_which_way_is_better_is_the_figures() -> None:
    base = np.random.default_rng(4).uniform(0.1, 0.3, 10)
    a = rows({"swap_rate/x": [*(base + 0.2)], "yaw_range": [*(base + 1)]})
    b = rows({"swap_rate/x": [*base], "yaw_range": [*base]})
    assert [one.verdict for one in compare(a, b)] == ["better", "different"]


def test_chance_is_undecided_and_few_pairs_are_too_few() -> None:
    generator = np.random.default_rng(5)
    a, b = (rows({"margin/x": [*generator.normal(0, 1, 30)]}) for _ in range(2))
    assert compare(a, b)[0].verdict == "undecided"
    assert compare(a, a)[0].verdict == "undecided"
    few = [rows({"margin/x": [level + k / 100 for k in range(5)]}) for level in (0.0, 9.0)]
    (found,) = compare(*few)
    assert found.verdict == "too few"
    assert "it takes 6" in found.in_words()


def test_among_many_figures_of_chance_hardly_any_is_called_better() -> None:
    """Without Holm's correction some 5 % of 40 would be."""
    generator = np.random.default_rng(6)
    names = [f"likeness/{k}" for k in range(40)]
    a, b = (rows({name: [*generator.normal(0, 1, 8)] for name in names}) for _ in range(2))
    assert all(one.verdict == "undecided" for one in compare(a, b))


def test_only_videos_of_both_are_compared() -> None:
    a, b = rows({"margin/x": [0.0] * 8}), rows({"margin/x": [0.5] * 7})
    assert compare(a, b)[0].difference.num == 7
    assert compare(a, {"another": {"margin/x": 1.0}}) == []
