"""Tests of probabilities to tiers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from models.tiers import cumulative_tiers, expected_score, judge, margins, softmax

LOGITS = arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(2, 6)),
    elements=st.floats(-30, 30, width=32),
)
BETAS = st.floats(0.01, 0.99)


def one(*probabilities: float) -> NDArray[np.float32]:
    """One row."""
    return np.array([probabilities], dtype=np.float32)


@given(LOGITS, st.floats(0.1, 10))
def test_probabilities_sum_to_one(logits: NDArray[np.float32], temperature: float) -> None:
    """Softmax over the labels is a distribution, at any temperature."""
    p = softmax(logits, temperature)
    assert p.dtype == np.float32
    assert np.all(p >= 0)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-5)


@given(LOGITS, st.floats(-1000, 1000))
def test_a_constant_added_to_the_logits_changes_nothing(logits: NDArray[np.float32], shift: float) -> None:
    """Logits and log-probabilities give the same answer: only differences between labels count."""
    np.testing.assert_allclose(softmax(logits + np.float32(shift)), softmax(logits), atol=1e-3)


@given(LOGITS, BETAS, BETAS)
def test_raising_beta_only_demotes(logits: NDArray[np.float32], a: float, b: float) -> None:
    """A stricter beta never moves an item to a better tier."""
    p = softmax(logits)
    assert np.all(cumulative_tiers(p, min(a, b)) <= cumulative_tiers(p, max(a, b)))


@given(LOGITS, BETAS)
def test_tiers_follow_the_definition(logits: NDArray[np.float32], beta: float) -> None:
    """The fast path agrees with a loop that adds up tier by tier."""
    p = softmax(logits)
    for row, tier in zip(p, cumulative_tiers(p, beta), strict=True):
        total, expected = np.float32(0.0), len(row) - 1
        for column, share in enumerate(row):
            total += share
            if total >= beta - 1e-6:
                expected = column
                break
        assert tier == expected


@given(LOGITS, BETAS, st.randoms(use_true_random=False))
def test_order_of_items_changes_no_verdict(logits: NDArray[np.float32], beta: float, random: object) -> None:
    """Verdicts of a permuted request are the permuted verdicts."""
    order = np.random.default_rng(hash(random) & 0xFFFF).permutation(len(logits))
    straight, permuted = judge(logits, beta=beta), judge(logits[order], beta=beta)
    assert np.array_equal(straight.tiers[order], permuted.tiers)
    np.testing.assert_allclose(straight.scores[order], permuted.scores, atol=1e-6)


@given(LOGITS, BETAS)
def test_scores_and_margins_stay_in_range(logits: NDArray[np.float32], beta: float) -> None:
    """A score lies in [0, 1], a margin in [0, 1]."""
    verdicts = judge(logits, beta=beta)
    assert np.all((verdicts.scores >= 0) & (verdicts.scores <= 1))
    assert np.all((verdicts.margins >= 0) & (verdicts.margins <= 1))


@pytest.mark.parametrize(
    ("probabilities", "tier"),
    [
        ((0.5, 0.2, 0.2, 0.1), 0),  # C4 = 0.5 reaches 0.5
        ((0.4, 0.2, 0.3, 0.1), 1),  # C3 = 0.6
        ((0.1, 0.2, 0.3, 0.4), 2),  # C2 = 0.6
        ((0.1, 0.1, 0.1, 0.7), 3),
        ((0.0, 0.0, 0.0, 1.0), 3),
    ],
)
def test_tiers_at_one_half(probabilities: tuple[float, ...], tier: int) -> None:
    """At beta 0.5 the tier is the median label."""
    assert cumulative_tiers(one(*probabilities), 0.5)[0] == tier


def test_a_sum_that_equals_beta_but_for_rounding_counts_as_reached() -> None:
    """0.1 + 0.2 reaches 0.3 although float32 may say otherwise."""
    assert cumulative_tiers(one(0.1, 0.2, 0.3, 0.4), 0.3)[0] == 1


def test_score_is_the_expected_tier() -> None:
    """(3 p4 + 2 p3 + 1 p2) / 3."""
    assert expected_score(one(0.2, 0.3, 0.4, 0.1))[0] == pytest.approx((0.6 + 0.6 + 0.4) / 3)


def test_margin_leaves_out_the_worst_tier() -> None:
    """C of the worst tier is always 1 and decides nothing."""
    assert margins(one(0.1, 0.1, 0.1, 0.7), 0.9)[0] == pytest.approx(0.6)


def test_beta_can_change_without_rescoring() -> None:
    """Tiers from the probabilities of an answer equal tiers from the logits."""
    logits = np.log(one(0.45, 0.2, 0.2, 0.15))
    first = judge(logits, beta=0.4)
    assert first.tiers[0] == 0
    assert cumulative_tiers(first.probabilities, 0.6)[0] == judge(logits, beta=0.6).tiers[0] == 1


def test_temperature_flattens() -> None:
    """A higher temperature brings probabilities closer together."""
    logits = np.array([[2.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    assert softmax(logits, 2.0)[0, 0] < softmax(logits, 1.0)[0, 0]
