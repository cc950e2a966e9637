"""How one human rater scores: what a judge can be asked to reach, from both sides.

Each rater's own grades rank and tier the pairs, as a judge's do, and the figures of all raters' turns are averaged,
resample by resample. A turn counts the pairs that at least one other rater graded. Two lines, because neither alone is
fair:

- against the others (leave one out): the truth is the mean of the pair's other raters, rounded (a half goes up).
  Nothing of the rater is in it, but it is rougher than the final grade that judges are held to: hard on people;
- against the final grade: the judges' own truth, of which the rater's grade is a part: it flatters people.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from models.evaluation.bootstrap import Bootstrap, Draws
from models.evaluation.evaluate import given_statistics, ranking_statistics
from models.evaluation.pairs import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.evaluation.bootstrap import Statistic
    from models.evaluation.pairs import LabelledPair
    from models.evaluation.progress import Progress
    from models.manifest import Manifest

OTHERS: Final = "rater v. others"
FINAL: Final = "rater v. final"
NOTES: Final = {
    OTHERS: "each human rater against the rounded mean of the others",
    FINAL: "each human rater against the final grade, of which the rater's is a part",
}
_FEWEST: Final = 2  # raters of a pair, and pairs of a rater's turn


def rater_draws(
    pairs: Sequence[LabelledPair], manifest: Manifest, against: str, *, resamples: int, progress: Progress
) -> tuple[dict[str, Draws], int] | None:
    """A person's figures, by the same definitions as a judge's; those of probabilities are not among them.

    Args:
        pairs: whose `raters` hold each rater's grade, 0 is worst, NaN where that rater gave none.
        manifest: names the tiers and says which are Good.
        against: OTHERS or FINAL.
        resamples: of the bootstrap; the same clusters give the same resamples as a judge's.
        progress: told of the bootstrap.

    Returns:
        Figure -> draws, and how many pairs counted; None where no pair has two raters.
    """
    width = max((len(p.raters) for p in pairs), default=0)
    grades = np.array([[*p.raters, *[np.nan] * (width - len(p.raters))] for p in pairs], dtype=np.float64)
    sample = Sample.of(pairs, len(manifest.tiers))
    bootstrap = Bootstrap(sample.clusters, resamples=resamples)
    turns = [turn for own in range(width) if (turn := _turn(sample, grades, own, manifest, against)) is not None]
    found = []
    for done, (statistics, _) in enumerate(turns, start=1):
        found.append(bootstrap.draw(statistics))
        progress(against, done, len(turns))
    if not found:
        return None
    counted = np.any([rows for _, rows in turns], axis=0)
    mean = {
        name: Draws(
            float(_mean_of_defined([np.array([d[name].value]) for d in found])[0]),
            _mean_of_defined([d[name].samples for d in found]),
        )
        for name in found[0]
    }
    return mean, int(counted.sum())


def _mean_of_defined(samples: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over turns of a figure in each resample, turns without it left out; NaN where none has it."""
    stacked = np.array(samples)
    defined = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        result: NDArray[np.float64] = np.where(defined, stacked, 0.0).sum(axis=0) / defined.sum(axis=0)
    return result


def _turn(
    sample: Sample, grades: NDArray[np.float64], own: int, manifest: Manifest, against: str
) -> tuple[dict[str, Statistic], NDArray[np.bool_]] | None:
    """Statistics of one rater's turn, and the pairs that count, bool [n]; None when too few do."""
    others = np.delete(grades, own, axis=1)
    rated = ~np.isnan(others)
    counts = ~np.isnan(grades[:, own]) & rated.any(axis=1)
    if counts.sum() < _FEWEST:
        return None
    rows = np.flatnonzero(counts)
    truth = sample.truth[rows]
    if against == OTHERS:
        mean = np.nansum(others[rows], axis=1) / rated[rows].sum(axis=1)
        truth = sample.tiers - 1 - np.floor(mean + 0.5).astype(np.int64)
    chosen = sample.tiers - 1 - grades[rows, own].astype(np.int64)
    # Queries are numbered anew: those of which no pair counts are not there.
    part = replace(sample, queries=_renumbered(sample.queries[rows]), clusters=sample.clusters[rows], truth=truth)
    good = np.array([t.band == "Good" for t in manifest.tiers])[truth]
    statistics = {
        **ranking_statistics(part, grades[rows, own], good),
        **given_statistics(part, chosen, [t.name for t in manifest.tiers]),
    }
    return {name: _within(statistic, rows) for name, statistic in statistics.items()}, counts


def _within(statistic: Statistic, rows: NDArray[np.int64]) -> Statistic:
    """The same of all pairs' weights; NaN in a resample that holds none of these rows."""

    def of_all(weights: NDArray[np.float64]) -> float:
        own = weights[rows]
        return statistic(own) if own.any() else float("nan")

    return of_all


def _renumbered(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    result: NDArray[np.int64] = np.unique(numbers, return_inverse=True)[1]
    return result
