"""Two judges on the same pairs: paired differences, side-by-side pages, and every pair whose tier flipped."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from models.evaluation import metrics
from models.evaluation.bootstrap import mean_statistic
from models.evaluation.evaluate import Judged, pair_view
from models.evaluation.reports import Flip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.evaluation.bootstrap import Statistic
    from models.evaluation.pairs import LabelledPair, Sample

SAME: Final = 0.02  # NDCG@10 that two pages may differ by and still be called the same; ours, assessors are not at hand


def side_by_side(sample: Sample, a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[NDArray[np.int64], Statistic]:
    """Good / Same / Bad for B, query by query, and (G - B) / (G + S + B) as a statistic.

    In the papers people compare two result pages blindly (2510.11122, online evaluation). Offline, the grades compare
    them: B's first page is Good when its NDCG@10 is higher by more than 0.02. A query without any positive is Same.

    Returns:
        +1, 0 or -1 per query, int64 [Q], and the statistic.
    """
    rows = sample.rows_by_query()
    gain = np.array([metrics.ndcg(b[r], sample.grades[r]) - metrics.ndcg(a[r], sample.grades[r]) for r in rows])
    verdict = np.where(np.isnan(gain) | (np.abs(gain) <= SAME), 0, np.sign(gain)).astype(np.int64)
    return verdict, mean_statistic(verdict.astype(np.float64), np.array([r[0] for r in rows]))


def flips(pairs: Sequence[LabelledPair], sample: Sample, a: Judged, b: Judged) -> tuple[Flip, ...]:
    """Pairs whose tier differs, those that B made worse first, then by how far the score moved."""
    tier_a, tier_b = a.verdicts.tiers, b.verdicts.tiers
    harm = np.abs(tier_b - sample.truth) - np.abs(tier_a - sample.truth)
    moved = np.abs(b.scores - a.scores)
    changed = np.flatnonzero(tier_a != tier_b)
    order = changed[np.lexsort((-moved[changed], -harm[changed]))]
    return tuple(
        Flip(a=pair_view(pairs[r], int(r), a), b=pair_view(pairs[r], int(r), b), harm=int(harm[r])) for r in order
    )


def flip_counts(sample: Sample, a: Judged, b: Judged) -> dict[str, int]:
    """How many pairs flipped, by what it did; and across a band's edge."""
    tier_a, tier_b = a.verdicts.tiers, b.verdicts.tiers
    harm = np.sign(np.abs(tier_b - sample.truth) - np.abs(tier_a - sample.truth))[tier_a != tier_b]
    names = Counter({-1: "better", 0: "neither", 1: "worse"}[int(h)] for h in harm)
    bands_a, bands_b = ([j.manifest.tiers[t].band for t in j.verdicts.tiers] for j in (a, b))
    crossed = sum(x != y for x, y in zip(bands_a, bands_b, strict=True))
    return {**{n: names[n] for n in ("better", "worse", "neither")}, "band": crossed}
