"""The figures of an evaluation. Pure functions on arrays; nothing here knows a model.

n pairs, K tiers, Q queries. A tier is its column, 0 is best (models/tiers.py); a grade is K - 1 - tier, so 0 is worst.
`weights` float64 [n] say how often each pair occurs: all ones for the sample itself, the cluster's count in a bootstrap
resample (bootstrap.py). A figure that is undefined for its input is NaN, never a made-up zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

PAGE: Final = 10  # items on a result page
MID_PAGE: Final = 0.5  # share of Good items from which a page is fine; papers give none, ours (docs/evaluation.md)


def ndcg(scores: Floats, grades: Ints, cutoff: int = PAGE) -> float:
    """NDCG of one query's pool, gain 2^grade - 1, discount 1 / log2(rank + 1).

    Pairs that tie share their ranks' mean discount, so that the order of the input cannot move the figure.

    Returns:
        In [0, 1]; NaN when no grade is above 0.
    """
    gains = np.exp2(grades.astype(np.float64)) - 1.0
    discounts = np.zeros(len(gains))
    top = min(cutoff, len(gains))
    discounts[:top] = 1.0 / np.log2(np.arange(2, top + 2))
    ideal = float(np.sort(gains)[::-1] @ discounts)
    if ideal == 0.0:
        return float("nan")
    return float(gains @ _shared_by_ties(scores, discounts)) / ideal


def _shared_by_ties(scores: Floats, by_rank: Floats) -> Floats:
    """Hand out values by rank, best score first; equal scores get the mean of their ranks' values."""
    _, group = np.unique(-scores, return_inverse=True)
    totals = np.bincount(np.sort(group), weights=by_rank)
    shares: Floats = (totals / np.bincount(group))[group]
    return shares


def page_share(scores: Floats, good: NDArray[np.bool_], cutoff: int = PAGE) -> float:
    """Item Goodrate of one query: the share of Good items on its first page (papers: 2510.11122, evaluation)."""
    top = min(cutoff, len(scores))
    on_page = np.zeros(len(scores))
    on_page[:top] = 1.0 / top
    return float(_shared_by_ties(scores, on_page) @ good)


def page_is_fine(share: float) -> float:
    """1 for a page rated Good or Mid, else 0: its mean over queries is the Query Goodrate."""
    return float(share >= MID_PAGE - 1e-9)


def auc(scores: Floats, positive: NDArray[np.bool_], weights: Floats | None = None) -> float:
    """Probability that a positive pair outranks a negative one, ties counted half; NaN with one class only."""
    weights = np.ones(len(scores)) if weights is None else weights
    _, group = np.unique(scores, return_inverse=True)
    up = np.bincount(group, weights=weights * positive)
    down = np.bincount(group, weights=weights * ~positive)
    pairs = up.sum() * down.sum()
    return float(up @ (np.cumsum(down) - down / 2)) / pairs if pairs else float("nan")


def confusion(truth: Ints, predicted: Ints, tiers: int, weights: Floats | None = None) -> Floats:
    """Weight of each (true, predicted) tier: float64 [K, K]."""
    counts = np.bincount(truth * tiers + predicted, weights=weights, minlength=tiers * tiers)
    return counts.astype(np.float64).reshape(tiers, tiers)


def f1(matrix: Floats) -> Floats:
    """One-vs-rest F1 per tier, float64 [K]; NaN for a tier that is neither true nor predicted anywhere."""
    both = matrix.sum(axis=0) + matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        result: Floats = 2.0 * np.diag(matrix) / both
    return result


def macro_f1(matrix: Floats) -> float:
    """Unweighted mean of the tiers' F1, over the tiers that occur."""
    values = f1(matrix)
    return float(values[~np.isnan(values)].mean())


def accuracy(matrix: Floats) -> float:
    """Exact tier match."""
    return float(np.trace(matrix) / matrix.sum())


def quadratic_kappa(matrix: Floats) -> float:
    """Cohen's kappa with squared tier distance as the cost; NaN when chance alone would never disagree."""
    index = np.arange(len(matrix))
    cost = (index[:, None] - index) ** 2.0
    chance = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / matrix.sum()
    expected = float((cost * chance).sum())
    return 1.0 - float((cost * matrix).sum()) / expected if expected else float("nan")


def equal_mass_bins(probability: Floats, weights: Floats | None = None, bins: int = 10) -> Ints:
    """Bin of each pair, [n]: pairs sorted by probability, cut where the running weight passes each tenth."""
    weights = np.ones(len(probability)) if weights is None else weights
    order = np.argsort(probability, kind="stable")
    middle = np.cumsum(weights[order]) - weights[order] / 2
    result = np.empty(len(probability), dtype=np.int64)
    result[order] = np.minimum(middle * bins / max(weights.sum(), 1e-12), bins - 1).astype(np.int64)
    return result


def calibration_error(
    probability: Floats, event: NDArray[np.bool_], weights: Floats | None = None, bins: int = 10
) -> float:
    """Expected calibration error: mean |predicted - observed| over equal-mass bins, by weight."""
    weights = np.ones(len(probability)) if weights is None else weights
    bin_of = equal_mass_bins(probability, weights, bins)
    gap = np.bincount(bin_of, weights=weights * (probability - event), minlength=bins)
    return float(np.abs(gap).sum() / weights.sum())


def negative_log_likelihood(probabilities: NDArray[np.float32], truth: Ints) -> float:
    """Mean nats of surprise at the true tier; probabilities [n, K]."""
    own = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(own, 1e-12)).mean())
