"""Chooses beta and a temperature on labelled pairs that the model was not trained on.

Temperature by the log-loss of the labels (Guo et al., arXiv 1706.04599), kept at 1 unless it helps and costs no tiers;
then beta for cumulative tiering (arXiv 2508.12365 gives no value) on a grid, by macro-F1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from models import tiers
from models.canaries import canary_problems, canary_prompts
from models.deadline import Deadline
from models.errors import ModelError
from models.evaluation import metrics
from models.evaluation.bootstrap import Bootstrap
from models.evaluation.evaluate import good_columns
from models.evaluation.evaluate import sweep as sweep_betas
from models.evaluation.pairs import Sample
from models.evaluation.reports import Choice, Separation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.evaluation.reports import SweepPoint
    from models.evaluation.scoring import Judge
    from models.manifest import Manifest

FEWEST: Final = 20  # pairs of a tier; with fewer, its F1 is one lucky pair
HELPS: Final = 0.01  # share of the log-loss that a temperature has to save
WORTH: Final = 0.03  # macro-F1 that probabilities as they should be may cost; sharper ones often tier a little better
SMOOTHING: Final = 2  # grid steps to each side: a plateau is chosen, not a spike
FOLDS: Final = 5
_LOG_RANGE: Final = (math.log(0.1), math.log(10.0))
_GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0


class CalibrationError(ModelError):
    """There is nothing to calibrate: the message names the tiers that do not separate, and why."""


def separation(sample: Sample, scores: NDArray[np.float64], manifest: Manifest) -> tuple[Separation, ...]:
    """AUC of each tier against the next worse one, with intervals over clusters.

    Raises:
        CalibrationError: a tier has too few pairs.
    """
    counts = np.bincount(sample.truth, minlength=sample.tiers)
    names = [t.name for t in manifest.tiers]
    if few := [f"{name} has {count}" for name, count in zip(names, counts, strict=True) if count < FEWEST]:
        raise CalibrationError(f"each tier needs at least {FEWEST} labelled pairs, but {', '.join(few)}")
    result = []
    for better in range(sample.tiers - 1):
        own = (sample.truth == better) | (sample.truth == better + 1)
        positive, ranked = sample.truth[own] == better, scores[own]
        draws = Bootstrap(sample.clusters[own], resamples=500).draw(
            {"auc": lambda w, s=ranked, p=positive: metrics.auc(s, p, w)}  # type: ignore[misc]  # mypy does not type a lambda's default
        )
        result.append(
            Separation(
                better=names[better],
                worse=names[better + 1],
                pairs=(int(counts[better]), int(counts[better + 1])),
                auc=draws["auc"].estimate(),
            )
        )
    return tuple(result)


def check_separation(found: Sequence[Separation]) -> None:
    """Refuse when a tier cannot be told from its neighbour: any threshold between them would be noise.

    Raises:
        CalibrationError: naming the tiers, their AUC and what to do.
    """
    mixed = [s for s in found if s.auc.low is None or s.auc.low <= 0.5]  # noqa: PLR2004 - chance
    if mixed:
        told = "; ".join(
            f"{s.better} over {s.worse}: AUC {s.auc.value or 0:.3f} from {s.auc.low or 0:.3f}" for s in mixed
        )
        raise CalibrationError(
            f"the scores do not separate these tiers, so no beta can: {told} (0.5 is chance). "
            "Check that the labels mean the checkpoint's tiers, train longer, or merge the tiers"
        )


def fit_temperature(logprobs: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Temperature of the least log-loss, by golden-section search over [0.1, 10]; 1 when that saves less than 1 %."""

    def loss(log_temperature: float) -> float:
        return metrics.negative_log_likelihood(tiers.softmax(logprobs, math.exp(log_temperature)), truth)

    low, high = _LOG_RANGE
    while high - low > 1e-3:  # noqa: PLR2004 - a thousandth of the temperature
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    best = (low + high) / 2.0
    return round(math.exp(best), 3) if loss(best) < (1.0 - HELPS) * loss(0.0) else 1.0


def choose(sample: Sample, logprobs: NDArray[np.float32]) -> tuple[float, float]:
    """Beta and temperature.

    The temperature of the least log-loss is taken unless the best macro-F1 under it is lower than without one by more
    than 0.03: a better probability must not buy worse tiers.
    """
    best: dict[float, SweepPoint] = {}
    for temperature in (1.0, fit_temperature(logprobs, sample.truth)):
        points = sweep_betas(sample, tiers.softmax(logprobs, temperature))
        beta = choose_beta(points)
        best[temperature] = next(p for p in points if p.beta == beta)
    plain, (fitted, point) = best[1.0], list(best.items())[-1]
    return (point.beta, fitted) if point.macro_f1 >= plain.macro_f1 - WORTH else (plain.beta, 1.0)


def choose_beta(points: Sequence[SweepPoint]) -> float:
    """Beta of the best macro-F1 averaged over its neighbourhood; of equal ones the nearest to one half."""
    f1 = np.array([p.macro_f1 for p in points])
    reach = range(len(f1))
    smooth = [float(f1[max(0, i - SMOOTHING) : i + SMOOTHING + 1].mean()) for i in reach]
    best = max(reach, key=lambda i: (round(smooth[i], 9), -abs(points[i].beta - 0.5)))
    return points[best].beta


def choice(
    sample: Sample, logprobs: NDArray[np.float32], manifest: Manifest, *, beta: float, temperature: float
) -> Choice:
    """What one setting gives on labelled pairs."""
    p = tiers.softmax(logprobs, temperature)
    matrix = metrics.confusion(sample.truth, tiers.cumulative_tiers(p, beta), sample.tiers)
    columns = good_columns(manifest)
    return Choice(
        beta=beta,
        temperature=temperature,
        macro_f1=metrics.macro_f1(matrix),
        accuracy=metrics.accuracy(matrix),
        log_loss=metrics.negative_log_likelihood(p, sample.truth),
        calibration_error=metrics.calibration_error(
            p[:, columns].sum(axis=1, dtype=np.float64), np.isin(sample.truth, columns)
        ),
    )


def cross_fitted(
    sample: Sample, probabilities: NDArray[np.float32], *, seed: int = 0
) -> tuple[tuple[float, ...], float]:
    """Each fold of clusters judged with the beta chosen on the other folds.

    Args:
        sample: human-graded pairs.
        probabilities: float32 [n, K], under the temperature to be shipped.
        seed: of the folds.

    Returns:
        The folds' betas, and macro-F1 over all pairs.

    Raises:
        CalibrationError: fewer clusters than folds.
    """
    clusters = np.unique(sample.clusters)
    if len(clusters) < FOLDS:
        raise CalibrationError(f"{len(clusters)} clusters cannot make {FOLDS} folds: judge more queries")
    fold_of = np.empty(len(clusters), dtype=np.int64)
    fold_of[np.random.default_rng(seed).permutation(len(clusters))] = np.arange(len(clusters)) % FOLDS
    fold = fold_of[sample.clusters]
    betas = []
    predicted = np.empty(len(sample.truth), dtype=np.int64)
    for held in range(FOLDS):
        own = fold == held
        rest = Sample(sample.queries[~own], sample.clusters[~own], sample.truth[~own], sample.tiers)
        beta = choose_beta(sweep_betas(rest, probabilities[~own]))
        predicted[own] = tiers.cumulative_tiers(probabilities[own], beta)
        betas.append(beta)
    return tuple(betas), metrics.macro_f1(metrics.confusion(sample.truth, predicted, sample.tiers))


def macro_f1_at(sample: Sample, probabilities: NDArray[np.float32], beta: float) -> float:
    """Macro-F1 of cumulative tiering at one beta."""
    return metrics.macro_f1(metrics.confusion(sample.truth, tiers.cumulative_tiers(probabilities, beta), sample.tiers))


async def check_canaries(judge: Judge) -> None:
    """Ask the judge its manifest's canaries: a service that answers one differently is never ready.

    Raises:
        CalibrationError: naming the canaries that the judge's beta and temperature would break.
        EngineError: the engine did not answer.
    """
    manifest = judge.manifest
    answers = [
        (await judge.engine.score(prefix, [suffix], Deadline.never())).logprobs[0]
        for prefix, suffix in canary_prompts(manifest, judge.writer)
    ]
    if problems := canary_problems(manifest, np.array(answers, dtype=np.float32)):
        raise CalibrationError(
            f"not written: with beta {manifest.beta:g} and temperature {manifest.temperature:g} no service would "
            f"become ready: {'; '.join(problems)}"
        )
