"""Tiers, and how label probabilities become one of them. Pure functions on arrays.

Columns are tiers, best first, everywhere in the project: column 0 is the best tier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Band = Literal["Good", "Mid", "Bad"]

# C_k and beta are both rounded numbers: equal values must count as reached (2508.12365 gives no tolerance; ours).
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What N items were judged to be. Arrays share their first axis.

    Attributes:
        probabilities: float32 [N, K], rows sum to 1, columns best tier first.
        tiers: int64 [N], column index of the chosen tier.
        scores: float32 [N], expected tier scaled to [0, 1].
        margins: float32 [N], distance of beta to the nearest cumulative probability.
    """

    probabilities: NDArray[np.float32]
    tiers: NDArray[np.int64]
    scores: NDArray[np.float32]
    margins: NDArray[np.float32]


def softmax(logprobs: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Label log-probabilities or logits [N, K] -> probabilities over the labels alone, float32 [N, K]."""
    scaled = np.asarray(logprobs, dtype=np.float32) / np.float32(temperature)
    shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: NDArray[np.float32] = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def cumulative_tiers(probabilities: NDArray[np.float32], beta: float) -> NDArray[np.int64]:
    """CumPT: the best tier k whose cumulative probability C_k = sum of p_j over j at least as good reaches beta.

    arXiv 2508.12365, section on cumulative probability tiering; beta's value is not public, so it is calibrated.

    Args:
        probabilities: float32 [N, K], best tier first.
        beta: in (0, 1); raising it only ever demotes.

    Returns:
        int64 [N], column of the chosen tier.
    """
    return _reached(_cumulative(probabilities), beta)


def expected_score(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sum over tiers of (k-1) * p_k / (K-1): float32 [N] in [0, 1], 1 is best."""
    result: NDArray[np.float32] = (probabilities @ _weights(probabilities.shape[-1])).clip(0.0, 1.0)
    return result


def margins(probabilities: NDArray[np.float32], beta: float) -> NDArray[np.float32]:
    """Min over k < K of |C_k - beta|: how far the nearest tier change is. C_K is always 1 and decides nothing."""
    return _distance(_cumulative(probabilities), beta)


def judge(logprobs: NDArray[np.float32], *, beta: float, temperature: float = 1.0) -> Verdicts:
    """Label log-probabilities [N, K], best tier first -> verdicts. All arithmetic is float32."""
    probabilities = softmax(logprobs, temperature)
    cumulative = _cumulative(probabilities)
    return Verdicts(
        probabilities=probabilities,
        tiers=_reached(cumulative, beta),
        scores=expected_score(probabilities),
        margins=_distance(cumulative, beta),
    )


def _cumulative(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = probabilities.cumsum(axis=-1, dtype=np.float32)
    return result


def _reached(cumulative: NDArray[np.float32], beta: float) -> NDArray[np.int64]:
    reached = cumulative >= beta - TOLERANCE
    reached[..., -1] = True  # C of the worst tier is 1 by definition, whatever rounding made of it
    result: NDArray[np.int64] = reached.argmax(axis=-1)
    return result


def _distance(cumulative: NDArray[np.float32], beta: float) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.abs(cumulative[..., :-1] - np.float32(beta)).min(axis=-1)
    return result


@lru_cache
def _weights(tiers: int) -> NDArray[np.float32]:
    return np.linspace(1.0, 0.0, tiers, dtype=np.float32)
