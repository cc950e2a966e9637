"""A judge's figures on labelled pairs, as plain functions: what reports, and tables of many judges, are made of.

Resamples depend on the pairs' clusters and the seed alone, so the draws of two judges on the same pairs in the same
order may be subtracted: that is the paired difference.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models import rationale
from models.evaluation.bootstrap import RESAMPLES, Bootstrap, mean_statistic
from models.evaluation.evaluate import Judged, is_good, ranking_statistics, tier_statistics
from models.evaluation.pairs import Sample
from models.evaluation.progress import counting, silent
from models.evaluation.scoring import decoded, score_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.evaluation.bootstrap import Draws, Statistic
    from models.evaluation.pairs import LabelledPair
    from models.evaluation.progress import Progress
    from models.evaluation.scoring import Judge, Scored

DECODED: Final = 200  # rationales that rule consistency is taken over: each costs as much as dozens of scores
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """A judge on n pairs.

    Attributes:
        sample: the pairs as arrays.
        scored: what the engine gave.
        judged: the verdicts under the manifest's beta and temperature.
        draws: figure -> its value and resamples; names as in `evaluate.ranking_statistics` and `tier_statistics`.
    """

    sample: Sample
    scored: Scored
    judged: Judged
    draws: dict[str, Draws]


async def measure(
    judge: Judge, pairs: Sequence[LabelledPair], *, resamples: int = RESAMPLES, progress: Progress = silent
) -> Measured:
    """Score labelled pairs and take every figure of ranking and tiers.

    Args:
        judge: checkpoint and warm engine.
        pairs: n pairs, from `pairs.read_labelled` or `pairs.read_judgements`.
        resamples: of the bootstrap over clusters.
        progress: told of every stage.

    Raises:
        EngineError: the engine did not answer for a pair.
    """
    sample, scored, judged = await judged_pairs(judge, pairs, progress)
    statistics = {
        **ranking_statistics(sample, judged.scores, is_good(sample, judge.manifest)),
        **tier_statistics(sample, judged),
    }
    count = counting(progress, "bootstrap", resamples)
    draws = await asyncio.to_thread(Bootstrap(sample.clusters, resamples=resamples).draw, statistics, count)
    return Measured(sample, scored, judged, draws)


async def judged_pairs(
    judge: Judge, pairs: Sequence[LabelledPair], progress: Progress = silent
) -> tuple[Sample, Scored, Judged]:
    """Labelled pairs as arrays, what the engine gave for them, and the verdicts under the manifest's thresholds.

    Raises:
        EngineError: the engine did not answer for a pair.
    """
    scored = await score_pairs(judge, pairs, counting(progress, "scoring", len(pairs)))
    return Sample.of(pairs, len(judge.manifest.tiers)), scored, Judged.of(judge.manifest, scored.logprobs)


async def rule_consistency(
    judge: Judge,
    pairs: Sequence[LabelledPair],
    judged: Judged,
    *,
    limit: int = DECODED,
    seed: int = 0,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Decode a random sample of rationales and hold each against its own tier.

    A pair is consistent when its rationale follows the schema and the rule table allows its tier for the verdicts that
    the rationale gives (`rationale.implied_tiers`); whether either is right is another question.

    Returns:
        float64 [n], 1 or 0 for the decoded pairs, NaN for the rest: all of them where the engine cannot decode, or
        where the checkpoint's tiers are not the four of the rule table.
    """
    result = np.full(len(pairs), np.nan)
    if len(judge.manifest.tiers) != rationale.RULE_TIERS:
        return result
    rows = np.random.default_rng(seed).permutation(len(pairs))[:limit]
    count = counting(progress, "rationales", len(rows))
    slots = asyncio.Semaphore(_AT_ONCE)

    async def hold(row: int) -> None:
        tier = int(judged.verdicts.tiers[row])
        async with slots:
            text = await decoded(judge, pairs[row], tier)
        count()
        if text is not None:
            said = rationale.parse(text, judge.manifest.rationale)
            result[row] = said is not None and tier in rationale.implied_tiers(said.category, dict(said.attributes))

    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(hold(int(row)))
    return result


def share_of(values: NDArray[np.float64]) -> Statistic:
    """Mean over pairs of what is 1, 0 or NaN (left out); values [n]."""
    return mean_statistic(values, np.arange(len(values)))
