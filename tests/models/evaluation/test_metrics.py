"""Tests of the figures against numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.evaluation import metrics

Floats = NDArray[np.float64]


def floats(*values: float) -> Floats:
    """A float64 array."""
    return np.array(values, dtype=np.float64)


def ints(*values: int) -> NDArray[np.int64]:
    """An int64 array."""
    return np.array(values, dtype=np.int64)


def bools(*values: int) -> NDArray[np.bool_]:
    """A boolean array."""
    return np.array(values, dtype=np.bool_)


def test_ndcg_by_hand() -> None:
    """Ranking 0, 3, 1: (7 / log2 3 + 1 / 2) / (7 + 1 / log2 3)."""
    expected = (7 / math.log2(3) + 1 / 2) / (7 + 1 / math.log2(3))
    assert metrics.ndcg(floats(0.2, 0.9, 0.1), ints(3, 0, 1)) == pytest.approx(expected)


def test_ndcg_of_the_ideal_order_is_one_and_without_positives_undefined() -> None:
    """Best order 1; a query with nothing to find says nothing."""
    assert metrics.ndcg(floats(3, 2, 1), ints(3, 2, 0)) == 1.0
    assert math.isnan(metrics.ndcg(floats(3, 2, 1), ints(0, 0, 0)))


def test_ndcg_sees_the_first_page_only() -> None:
    """A positive at rank 11 counts for nothing."""
    assert metrics.ndcg(-np.arange(11.0), ints(*[0] * 10, 3)) == 0.0


def test_ndcg_of_ties_is_the_mean_over_their_orders() -> None:
    """Two tied items: half of the best order's gain and half of the worst's."""
    grades = ints(3, 0)
    orders = [metrics.ndcg(floats(2, 1), grades), metrics.ndcg(floats(1, 2), grades)]
    assert metrics.ndcg(floats(1, 1), grades) == pytest.approx(np.mean(orders))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=25), st.randoms())
def test_input_order_moves_no_ranking_figure(rows: list[tuple[int, int]], random: object) -> None:
    """Figures depend on scores and grades, ties included, not on the order of the file."""
    shuffled = rows.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis hands out a random.Random
    values = []
    for own in (rows, shuffled):
        grades, scores = ints(*(g for g, _ in own)), floats(*(s for _, s in own))
        good = grades >= 2
        values.append([metrics.ndcg(scores, grades), metrics.auc(scores, good), metrics.page_share(scores, good)])
    np.testing.assert_allclose(values[0], values[1], equal_nan=True)


def test_auc_by_hand() -> None:
    """Positives 0.8 and 0.4 against negatives 0.6 and 0.4: 2 + 0 + 0.5 of 4."""
    scores, positive = floats(0.8, 0.4, 0.6, 0.4), bools(1, 1, 0, 0)
    assert metrics.auc(scores, positive) == pytest.approx(2.5 / 4)
    assert math.isnan(metrics.auc(scores, bools(1, 1, 1, 1)))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=20).filter(
        lambda rows: any(w for *_, w in rows)
    )
)
def test_weights_count_as_copies(rows: list[tuple[int, bool, int]]) -> None:
    """A weight of 3 is the pair three times, in every weighted figure."""
    scores = floats(*(s / 5 for s, *_ in rows))
    event, weights = bools(*(e for _, e, _ in rows)), floats(*(w for *_, w in rows))
    repeat = np.repeat(np.arange(len(rows)), weights.astype(int))
    np.testing.assert_allclose(metrics.auc(scores, event, weights), metrics.auc(scores[repeat], event[repeat]))
    tiers, predicted = event.astype(np.int64), (scores > 0.5).astype(np.int64)
    np.testing.assert_allclose(
        metrics.confusion(tiers, predicted, 2, weights), metrics.confusion(tiers[repeat], predicted[repeat], 2)
    )


def test_confusion_and_what_follows_from_it() -> None:
    """Three tiers by hand: rows are true, columns predicted."""
    matrix = metrics.confusion(ints(0, 0, 1, 2, 2, 2), ints(0, 1, 1, 2, 2, 0), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    np.testing.assert_allclose(metrics.f1(matrix), [2 / 4, 2 / 3, 4 / 5])
    assert metrics.macro_f1(matrix) == pytest.approx((1 / 2 + 2 / 3 + 4 / 5) / 3)
    assert metrics.accuracy(matrix) == pytest.approx(4 / 6)


def test_macro_f1_leaves_out_a_tier_that_never_occurs() -> None:
    """Neither true nor predicted: no F1. Predicted but never true: 0."""
    absent = metrics.confusion(ints(0, 1), ints(0, 1), 3)
    assert math.isnan(metrics.f1(absent)[2])
    assert metrics.macro_f1(absent) == 1.0
    wrong = metrics.confusion(ints(0, 1), ints(0, 2), 3)
    assert metrics.macro_f1(wrong) == pytest.approx(1 / 3)


def test_quadratic_kappa_by_hand() -> None:
    """Perfect 1, reversed -1, and a one-step error costs less than a long one."""
    assert metrics.quadratic_kappa(np.diag([2.0, 3.0, 2.0])) == 1.0
    assert metrics.quadratic_kappa(floats(0, 1, 1, 0).reshape(2, 2)) == -1.0
    near, far = np.diag([3.0, 3.0, 3.0]), np.diag([3.0, 3.0, 3.0])
    near[0, 1] += 1
    far[0, 2] += 1
    assert metrics.quadratic_kappa(near) > metrics.quadratic_kappa(far)
    assert math.isnan(metrics.quadratic_kappa(np.diag([5.0, 0.0])))


def test_calibration_error_by_hand() -> None:
    """Two bins of two: |0.15 - 0.5| and |0.85 - 1|, each half of the mass."""
    probability, event = floats(0.1, 0.2, 0.8, 0.9), bools(0, 1, 1, 1)
    assert metrics.calibration_error(probability, event, bins=2) == pytest.approx((0.35 + 0.15) / 2)


def test_calibration_error_of_a_true_probability_is_small() -> None:
    """Events drawn with the stated probability leave only chance."""
    generator = np.random.default_rng(0)
    probability = generator.random(20_000)
    assert metrics.calibration_error(probability, generator.random(20_000) < probability) < 0.02


@given(st.integers(1, 60), st.integers(1, 10))
def test_bins_hold_equal_mass(n: int, bins: int) -> None:
    """No two bins differ by more than one pair, and bins follow the probability."""
    probability = np.random.default_rng(n).random(n)
    bin_of = metrics.equal_mass_bins(probability, bins=bins)
    counts = np.bincount(bin_of, minlength=bins)
    assert counts.max() - counts.min() <= 1
    assert np.all(np.diff(bin_of[np.argsort(probability)]) >= 0)


def test_log_loss_by_hand() -> None:
    """Mean of -ln 0.5 and -ln 0.25."""
    p = np.array([[0.5, 0.5], [0.75, 0.25]], dtype=np.float32)
    assert metrics.negative_log_likelihood(p, ints(0, 1)) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_pages_by_hand() -> None:
    """Twelve items, the best ten shown, six of them Good: Item Goodrate 0.6, a Mid page."""
    scores, good = -np.arange(12.0), bools(*[1] * 6, *[0] * 4, 1, 1)
    share = metrics.page_share(scores, good)
    assert share == pytest.approx(0.6)
    assert metrics.page_is_fine(share) == 1.0
    assert metrics.page_is_fine(0.49) == 0.0
    assert metrics.page_share(floats(1, 2), bools(0, 1)) == pytest.approx(0.5)
