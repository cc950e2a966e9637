"""Judge: label log-probabilities -> one verdict per item, best first. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models import tiers
from models.engines.port import ItemStatus
from service.reply import ItemResult

if TYPE_CHECKING:
    from models.engines.port import Scores
    from models.manifest import Manifest
    from models.prompt import Prompt
    from service.request import Candidate

DIGITS = 6  # float32 carries seven; more would be noise on the wire


def verdicts(
    manifest: Manifest, candidates: tuple[Candidate, ...], prompt: Prompt, scores: Scores
) -> tuple[ItemResult, ...]:
    """Results of N items in the order of the request."""
    finite = [bool(np.isfinite(row).all()) for row in scores.logprobs]
    status = [
        ItemStatus.FAILED if s is ItemStatus.OK and not usable else s
        for s, usable in zip(scores.status, finite, strict=True)
    ]
    ok = np.array([s is ItemStatus.OK for s in status])
    # Rows without a verdict are judged as if uniform and never shown: no NaN travels through the arithmetic.
    logprobs = np.where(ok[:, None], scores.logprobs, np.float32(0.0))
    judged = tiers.judge(logprobs, beta=manifest.beta, temperature=manifest.temperature)
    probabilities = np.round(judged.probabilities.astype(np.float64), DIGITS).tolist()
    values = np.round(judged.scores.astype(np.float64), DIGITS).tolist()
    margins = np.round(judged.margins.astype(np.float64), DIGITS).tolist()
    mass = None if scores.label_mass is None else np.round(scores.label_mass.astype(np.float64), DIGITS).tolist()
    names = [tier.name for tier in manifest.tiers]
    results = []
    for index, (candidate, suffix) in enumerate(zip(candidates, prompt.suffixes, strict=True)):
        good = status[index] is ItemStatus.OK
        tier = manifest.tiers[judged.tiers[index]] if good else None
        results.append(
            ItemResult(
                id=candidate.id,
                index=index,
                status=status[index],
                tier=tier.name if tier else None,
                label=tier.label if tier else None,
                band=tier.band if tier else None,
                score=values[index] if good else None,
                margin=margins[index] if good else None,
                probabilities=dict(zip(names, probabilities[index], strict=True)) if good else None,
                label_mass=mass[index] if good and mass else None,
                truncated=prompt.prefix.truncated + suffix.truncated,
                unrepresentable=prompt.prefix.unrepresentable + suffix.unrepresentable,
            )
        )
    return tuple(results)


def best_first(results: tuple[ItemResult, ...], top_n: int | None) -> tuple[ItemResult, ...]:
    """By score, then by position; items without a verdict last. Cut to `top_n`."""
    ranked = sorted(results, key=lambda r: (r.score is None, -(r.score or 0.0), r.index))
    return tuple(ranked[:top_n])
