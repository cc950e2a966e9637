"""From scores to an evaluation: a judge and its baselines on the same pairs, with intervals and paired differences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models import tiers
from models.evaluation import metrics
from models.evaluation.bootstrap import Draws, mean_statistic
from models.evaluation.reports import Difference, PairView, ReliabilityBin, SweepPoint, System

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from models.evaluation.bootstrap import Statistic
    from models.evaluation.pairs import LabelledPair, Sample
    from models.manifest import Manifest

BETAS: Final = tuple(round(0.30 + 0.01 * step, 2) for step in range(51))  # papers give none; grid of ours
HISTOGRAM_BINS: Final = 20


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's verdicts on a sample, under one beta and temperature."""

    manifest: Manifest
    verdicts: tiers.Verdicts
    beta: float

    @classmethod
    def of(cls, manifest: Manifest, logprobs: NDArray[np.float32]) -> Judged:
        """Under the manifest's own beta and temperature."""
        return cls(manifest, tiers.judge(logprobs, beta=manifest.beta, temperature=manifest.temperature), manifest.beta)

    @property
    def scores(self) -> NDArray[np.float64]:
        """What items are ranked by, [n]."""
        return self.verdicts.scores.astype(np.float64)

    @property
    def good_probability(self) -> NDArray[np.float64]:
        """Probability of any tier in the Good band, [n]."""
        result: NDArray[np.float64] = self.verdicts.probabilities[:, good_columns(self.manifest)].sum(
            axis=1, dtype=np.float64
        )
        return result

    @property
    def argmax(self) -> NDArray[np.int64]:
        """The likeliest tier, [n]."""
        result: NDArray[np.int64] = self.verdicts.probabilities.argmax(axis=1)
        return result


def good_columns(manifest: Manifest) -> list[int]:
    """Columns of the tiers in the Good band."""
    return [column for column, tier in enumerate(manifest.tiers) if tier.band == "Good"]


def is_good(sample: Sample, manifest: Manifest) -> NDArray[np.bool_]:
    """Whether the true tier is in the Good band, [n]."""
    result: NDArray[np.bool_] = np.isin(sample.truth, good_columns(manifest))
    return result


def ranking_statistics(sample: Sample, scores: NDArray[np.float64], good: NDArray[np.bool_]) -> dict[str, Statistic]:
    """Figures of any ranking: ndcg@10, auc (mean over queries), auc_pooled, query_goodrate, item_goodrate."""
    rows = sample.rows_by_query()
    first = np.array([r[0] for r in rows])
    shares = [metrics.page_share(scores[r], good[r]) for r in rows]
    return {
        "ndcg@10": mean_statistic((metrics.ndcg(scores[r], sample.grades[r]) for r in rows), first),
        "auc": mean_statistic((metrics.auc(scores[r], good[r]) for r in rows), first),
        "auc_pooled": lambda weights: metrics.auc(scores, good, weights),
        "query_goodrate": mean_statistic(map(metrics.page_is_fine, shares), first),
        "item_goodrate": mean_statistic(shares, first),
    }


def tier_statistics(sample: Sample, judged: Judged) -> dict[str, Statistic]:
    """Figures of a judge's tiers and probabilities."""
    names = [tier.name for tier in judged.manifest.tiers]
    own, likeliest = (given_statistics(sample, t, names) for t in (judged.verdicts.tiers, judged.argmax))
    probability, good = judged.good_probability, is_good(sample, judged.manifest)
    first: dict[str, Statistic] = {
        "macro_f1": own["macro_f1"],
        "macro_f1_argmax": likeliest["macro_f1"],
        "accuracy": own["accuracy"],
        "accuracy_argmax": likeliest["accuracy"],
        "quadratic_kappa": own["quadratic_kappa"],
        "calibration_error": lambda w: metrics.calibration_error(probability, good, w),
    }
    return first | own


def given_statistics(sample: Sample, given: NDArray[np.int64], names: Sequence[str]) -> dict[str, Statistic]:
    """Figures of tiers that somebody gave, a judge or a person: macro_f1, accuracy, quadratic_kappa, "f1 TIER" each.

    Args:
        sample: n pairs.
        given: tier columns [n].
        names: K, of the tiers.
    """

    def matrix(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return metrics.confusion(sample.truth, given, sample.tiers, weights)

    found: dict[str, Statistic] = {
        "macro_f1": lambda w: metrics.macro_f1(matrix(w)),
        "accuracy": lambda w: metrics.accuracy(matrix(w)),
        "quadratic_kappa": lambda w: metrics.quadratic_kappa(matrix(w)),
    }
    for column, name in enumerate(names):
        found[f"f1 {name}"] = lambda w, column=column: float(metrics.f1(matrix(w))[column])  # type: ignore[misc]  # mypy does not type a lambda's default
    return found


def system(name: str, draws: Mapping[str, Draws], note: str = "") -> System:
    """A system's figures with their intervals."""
    return System(name=name, figures={figure: d.estimate() for figure, d in draws.items()}, note=note)


def difference(first: str, second: str, a: Mapping[str, Draws], b: Mapping[str, Draws]) -> Difference:
    """Paired difference of the figures that both systems have."""
    return Difference(first=first, second=second, figures={n: (a[n] - b[n]).estimate() for n in a if n in b})


def integer_confusion(sample: Sample, predicted: NDArray[np.int64]) -> tuple[tuple[int, ...], ...]:
    """Counts of (true, predicted) tier, best first."""
    matrix = metrics.confusion(sample.truth, predicted, sample.tiers)
    return tuple(tuple(int(c) for c in row) for row in matrix)


def reliability(probability: NDArray[np.float64], event: NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    """Predicted against observed in ten equal-mass bins."""
    bin_of = metrics.equal_mass_bins(probability)
    return tuple(
        ReliabilityBin(
            predicted=float(probability[own].mean()), observed=float(event[own].mean()), pairs=int(own.sum())
        )
        for b in np.unique(bin_of)
        if (own := bin_of == b).any()
    )


def sweep(sample: Sample, probabilities: NDArray[np.float32]) -> tuple[SweepPoint, ...]:
    """Tier figures at every beta of the grid."""
    points = []
    for beta in BETAS:
        matrix = metrics.confusion(sample.truth, tiers.cumulative_tiers(probabilities, beta), sample.tiers)
        points.append(SweepPoint(beta=beta, macro_f1=metrics.macro_f1(matrix), accuracy=metrics.accuracy(matrix)))
    return tuple(points)


def histograms(sample: Sample, scores: NDArray[np.float64]) -> tuple[tuple[int, ...], ...]:
    """Score counts in equal bins over [0, 1], one row per true tier."""
    rows = (np.histogram(scores[sample.truth == t], HISTOGRAM_BINS, (0.0, 1.0))[0] for t in range(sample.tiers))
    return tuple(tuple(int(c) for c in row) for row in rows)


def worst_first(sample: Sample, judged: Judged, *, limit: int, per_query: int = 3) -> list[int]:
    """Rows whose chosen tier is wrong, by distance of the score from the true tier's, farthest first.

    A query shows `per_query` of them at most: one query that is misunderstood would fill the list.
    """
    distance = np.abs(judged.scores - sample.grades / (sample.tiers - 1))
    shown: Counter[int] = Counter()
    rows: list[int] = []
    for row in np.argsort(-distance, kind="stable"):
        query = int(sample.queries[row])
        if judged.verdicts.tiers[row] != sample.truth[row] and shown[query] < per_query and len(rows) < limit:
            shown[query] += 1
            rows.append(int(row))
    return rows


def pair_view(pair: LabelledPair, row: int, judged: Judged, rationale: str = "") -> PairView:
    """One pair and its verdict."""
    names = [t.name for t in judged.manifest.tiers]
    v = judged.verdicts
    return PairView(
        query=pair.query,
        id=pair.id,
        title=pair.item.title,
        brand=pair.item.brand,
        truth=names[pair.tier],
        predicted=names[v.tiers[row]],
        score=float(v.scores[row]),
        margin=float(v.margins[row]),
        probabilities=tuple(float(p) for p in v.probabilities[row]),
        chunk=pair.chunk,
        rationale=rationale,
    )
