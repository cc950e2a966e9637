"""What a chunk does to a judge: accuracy on the context test set with the right, no, a useless and a misleading chunk.

`tierwise data probes` writes such a set: each probe is one pair in four rows of one cluster, whose `kind` says which
chunk it comes with. The same probe stands on both sides of a difference, so differences are paired over probes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models.errors import DataError
from models.evaluation.bootstrap import RESAMPLES, Bootstrap, mean_statistic
from models.evaluation.evaluate import Judged, pair_view
from models.evaluation.figures import DECODED, judged_pairs, rule_consistency, share_of
from models.evaluation.pairs import read_labelled
from models.evaluation.progress import counting, silent
from models.evaluation.reports import ChunkFigures, ProbeReport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.evaluation.bootstrap import Draws, Estimate, Statistic
    from models.evaluation.pairs import LabelledPair
    from models.evaluation.progress import Progress
    from models.evaluation.reports import Data, Subject
    from models.evaluation.scoring import Judge
    from models.manifest import Tier

VARIANTS: Final = ("none", "right", "useless", "misleading")
_SHOWN: Final = 25


@dataclass(frozen=True, slots=True)
class Probed:
    """A judge on n rows of a context test set.

    Attributes:
        judged: the verdicts under the manifest's beta and temperature.
        accuracy: kind of chunk -> share of its rows with the right tier, cumulative tiering as served.
        argmax: the same for the likeliest tier, which no calibration moves.
        consistency: share of decoded rationales whose verdicts allow their tier; NaN where nothing can be decoded.
        decoded: how many were.
    """

    judged: Judged
    accuracy: dict[str, Draws]
    argmax: dict[str, Draws]
    consistency: Draws
    decoded: int


def read_probes(path: Path, tiers: Sequence[Tier]) -> list[LabelledPair]:
    """Rows of a context test set.

    Raises:
        DataError: see `pairs.read_labelled`; or rows of no kind of chunk, or a kind that no row has.
    """
    pairs = read_labelled(path, tiers)
    found = {p.kind for p in pairs}
    if found != set(VARIANTS):
        told = ", ".join(sorted(repr(k) for k in found))
        raise DataError(
            f"{path.name}: the rows' kinds are {told}; a context test set has {', '.join(VARIANTS)}: "
            "make one with `tierwise data probes`"
        )
    return pairs


async def probe_figures(
    judge: Judge,
    pairs: Sequence[LabelledPair],
    *,
    resamples: int = RESAMPLES,
    rationales: int = DECODED,
    progress: Progress = silent,
) -> Probed:
    """Score a context test set and take its figures; `accuracy["right"] - accuracy["none"]` is a paired difference.

    Args:
        judge: checkpoint and warm engine.
        pairs: of `read_probes`.
        resamples: of the bootstrap over probes.
        rationales: decoded at most, for rule consistency; 0 for none.
        progress: told of every stage.

    Raises:
        EngineError: the engine did not answer for a pair.
    """
    sample, _, judged = await judged_pairs(judge, pairs, progress)
    consistent = await rule_consistency(judge, pairs, judged, limit=rationales, progress=progress)
    statistics = {
        **{f"served {v}": s for v, s in _by_chunk(pairs, judged.verdicts.tiers == sample.truth).items()},
        **{f"argmax {v}": s for v, s in _by_chunk(pairs, judged.argmax == sample.truth).items()},
        "consistency": share_of(consistent),
    }
    count = counting(progress, "bootstrap", resamples)
    draws = await asyncio.to_thread(Bootstrap(sample.clusters, resamples=resamples).draw, statistics, count)
    return Probed(
        judged=judged,
        accuracy={v: draws[f"served {v}"] for v in VARIANTS},
        argmax={v: draws[f"argmax {v}"] for v in VARIANTS},
        consistency=draws["consistency"],
        decoded=int((~np.isnan(consistent)).sum()),
    )


async def probe(
    judge: Judge,
    pairs: Sequence[LabelledPair],
    data: Data,
    subject: Subject,
    *,
    resamples: int = RESAMPLES,
    progress: Progress = silent,
) -> ProbeReport:
    """Figures on a context test set as a report, with the rows that a misleading chunk turned wrong.

    Raises:
        EngineError: the engine did not answer for a pair.
    """
    found = await probe_figures(judge, pairs, resamples=resamples, progress=progress)
    tiers = found.judged.verdicts.tiers
    without = {(p.query, p.item) for n, p in enumerate(pairs) if p.kind == "none" and tiers[n] == p.tier}
    misled = [
        pair_view(p, n, found.judged)
        for n, p in enumerate(pairs)
        if p.kind == "misleading" and tiers[n] != p.tier and (p.query, p.item) in without
    ]
    return ProbeReport(
        subject=subject,
        data=data,
        by_chunk=tuple(
            ChunkFigures(
                chunk=v,
                rows=sum(p.kind == v for p in pairs),
                accuracy=found.accuracy[v].estimate(),
                change=_change(found.accuracy, v),
                accuracy_argmax=found.argmax[v].estimate(),
                change_argmax=_change(found.argmax, v),
            )
            for v in VARIANTS
        ),
        rule_consistency=found.consistency.estimate(),
        decoded=found.decoded,
        misled=tuple(misled[:_SHOWN]),
    )


def _change(draws: Mapping[str, Draws], variant: str) -> Estimate | None:
    return None if variant == VARIANTS[0] else (draws[variant] - draws[VARIANTS[0]]).estimate()


def _by_chunk(pairs: Sequence[LabelledPair], right: NDArray[np.bool_]) -> dict[str, Statistic]:
    """Share of right rows of each kind of chunk; right [n]."""
    rows = {v: np.array([n for n, p in enumerate(pairs) if p.kind == v], dtype=np.int64) for v in VARIANTS}
    return {v: mean_statistic(right[own].astype(np.float64), own) for v, own in rows.items()}
