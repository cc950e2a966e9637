"""Tests of the cluster bootstrap."""

import numpy as np
import pytest

from models.evaluation.bootstrap import Bootstrap, Draws, Estimate, mean_statistic


def test_the_value_is_the_statistic_on_the_sample() -> None:
    """Resampling gives the interval, never the value."""
    values = np.array([1.0, 2.0, 4.0])
    draws = Bootstrap(np.array([0, 1, 2]), resamples=50).draw({"mean": lambda w: float(w @ values / w.sum())})
    assert draws["mean"].value == pytest.approx(7 / 3)


def test_whole_clusters_are_drawn() -> None:
    """Pairs of one cluster always have the same weight, and weights add up to the clusters drawn."""
    clusters = np.array([0, 0, 1, 2, 2, 2])
    seen = []
    Bootstrap(clusters, resamples=20).draw({"spy": lambda w: float(seen.append(w.copy()) or 0)})  # type: ignore[func-returns-value] # list.append gives None
    for weights in seen:
        assert weights[0] == weights[1]
        assert weights[3] == weights[4] == weights[5]
        assert weights[0] + weights[2] + weights[3] == 3


def test_a_seed_fixes_the_resamples() -> None:
    """Two runs give the same interval; another seed another one."""
    clusters, values = np.arange(12), np.random.default_rng(1).random(12)

    def interval(seed: int) -> Estimate:
        bootstrap = Bootstrap(clusters, resamples=200, seed=seed)
        return bootstrap.draw({"m": lambda w: float(w @ values / w.sum())})["m"].estimate()

    assert interval(0) == interval(0)
    assert interval(0) != interval(1)


def test_paired_differences_are_narrower_than_unpaired() -> None:
    """B = A + 0.1 on every cluster: the difference has no spread although both figures do."""
    values = np.random.default_rng(0).random(20)
    draws = Bootstrap(np.arange(20), resamples=300).draw(
        {"a": lambda w: float(w @ values / w.sum()), "b": lambda w: float(w @ (values + 0.1) / w.sum())}
    )
    difference = (draws["b"] - draws["a"]).estimate()
    assert difference.excludes_zero
    assert difference.low == pytest.approx(0.1)
    assert difference.high == pytest.approx(0.1)
    assert draws["a"].estimate().low != draws["a"].estimate().high


def test_the_interval_covers_the_truth() -> None:
    """Of 100 samples of 40 clusters about 95 intervals hold the true mean."""
    generator = np.random.default_rng(3)
    held = 0
    for trial in range(100):
        values = generator.normal(size=40)
        mean = mean_statistic(values, np.arange(40))
        draws = Bootstrap(np.arange(40), resamples=200, seed=trial).draw({"m": mean})
        e = draws["m"].estimate()
        held += e.low is not None and e.high is not None and e.low <= 0 <= e.high
    assert 86 <= held <= 100


def test_an_undefined_figure_has_no_interval() -> None:
    """NaN stays undefined; resamples where a statistic is undefined are left out."""
    assert Draws(float("nan"), np.array([1.0])).estimate() == Estimate(value=None, low=None, high=None)
    partly = Draws(1.0, np.array([1.0, float("nan"), 1.0])).estimate()
    assert (partly.value, partly.low, partly.high) == (1.0, 1.0, 1.0)
    assert not Estimate(value=None, low=None, high=None).excludes_zero


def test_a_mean_over_queries_skips_the_undefined_ones() -> None:
    """A query without a figure counts neither above nor below the line."""
    statistic = mean_statistic([1.0, float("nan"), 0.0], np.array([0, 2, 3]))
    assert statistic(np.ones(4)) == 0.5
    assert statistic(np.array([3.0, 1, 5, 1])) == 0.75
    assert np.isnan(statistic(np.zeros(4)))


def test_progress_is_told_of_each_resample() -> None:
    """A long bootstrap can show a bar."""
    ticks: list[int] = []
    Bootstrap(np.arange(3), resamples=7).draw({"one": lambda _: 1.0}, lambda: ticks.append(1))
    assert len(ticks) == 7
