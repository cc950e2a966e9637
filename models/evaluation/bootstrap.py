"""Confidence intervals by bootstrap over query clusters.

Near-duplicate queries (ps4, playstation 4) share a cluster; whole clusters are drawn with replacement, because pairs of
one cluster are not independent. Every statistic is computed on the same resamples, so the difference of two systems'
draws is a paired difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    Statistic = Callable[[NDArray[np.float64]], float]  # weights [n] -> figure

RESAMPLES: Final = 2000
LEVEL: Final = 0.95


class Estimate(BaseModel):
    """A figure and its 95 % percentile interval; None where the figure is undefined."""

    model_config = ConfigDict(frozen=True)

    value: float | None
    low: float | None
    high: float | None

    @property
    def excludes_zero(self) -> bool:
        """For a difference: whether it is clear of chance at this level."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Draws:
    """A statistic on the sample and on each resample. Subtracting two gives the paired difference."""

    value: float
    samples: NDArray[np.float64]

    def __sub__(self, other: Draws) -> Draws:
        return Draws(self.value - other.value, self.samples - other.samples)

    def estimate(self) -> Estimate:
        """Value with its percentile interval; resamples where the statistic is undefined are left out."""
        defined = self.samples[~np.isnan(self.samples)]
        if np.isnan(self.value) or not len(defined):
            return Estimate(value=None, low=None, high=None)
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value=self.value, low=float(low), high=float(high))


class Bootstrap:
    """The resamples of one sample of pairs.

    Args:
        clusters: int64 [n], cluster index of each pair.
        resamples: B.
        seed: of the draws; the same seed and clusters give the same resamples.
    """

    def __init__(self, clusters: NDArray[np.int64], *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        count = int(clusters.max()) + 1
        generator = np.random.default_rng(seed)
        self._counts = generator.multinomial(count, np.full(count, 1.0 / count), size=resamples).astype(np.float64)
        self._clusters = clusters

    def draw(
        self, statistics: Mapping[str, Statistic], progress: Callable[[], object] | None = None
    ) -> dict[str, Draws]:
        """Compute every statistic on the sample and on every resample; `progress` is called once per resample."""
        ones = np.ones(len(self._clusters))
        values = {name: statistic(ones) for name, statistic in statistics.items()}
        samples = {name: np.empty(len(self._counts)) for name in statistics}
        for b, counts in enumerate(self._counts):
            weights = counts[self._clusters]
            for name, statistic in statistics.items():
                samples[name][b] = statistic(weights)
            if progress is not None:
                progress()
        return {name: Draws(values[name], samples[name]) for name in statistics}


def mean_statistic(values: Iterable[float], first_pair: NDArray[np.int64]) -> Statistic:
    """Mean of a figure over queries where it is defined.

    Args:
        values: one per query, NaN where undefined.
        first_pair: int64 [Q], a pair of each query, whose weight is the query's.
    """
    figures = np.array(list(values), dtype=np.float64)
    defined = ~np.isnan(figures)
    figures, pairs = figures[defined], first_pair[defined]

    def statistic(weights: NDArray[np.float64]) -> float:
        own = weights[pairs]
        total = own.sum()
        return float(own @ figures / total) if total else float("nan")

    return statistic
