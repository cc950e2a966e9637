"""Judge: label log-probabilities -> one verdict per item, best first. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models import tiers
from service.reply import ItemResult
from service.rows import OK, STATUSES, fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.manifest import Manifest
    from service.request import Candidate
    from service.rows import Rows

DIGITS = 6  # float32 carries seven; more would be noise on the wire


def verdicts(manifest: Manifest, candidates: Sequence[Candidate], rows: Rows) -> tuple[ItemResult, ...]:
    """Results of N items in the order of the request, from their N records."""
    ok = rows["status"] == OK
    # Rows without a verdict are judged as if uniform and never shown: no NaN travels through the arithmetic.
    logprobs = np.where(ok[:, None], rows["logprobs"], np.float32(0.0))
    judged = tiers.judge(logprobs, beta=manifest.beta, temperature=manifest.temperature)
    names = [tier.name for tier in manifest.tiers]
    columns = zip(
        candidates,
        rows["status"].tolist(),
        judged.tiers.tolist(),
        _rounded(judged.scores),
        _rounded(judged.margins),
        _rounded(judged.probabilities),
        _rounded(rows["label_mass"]),
        rows["truncated"].tolist(),
        rows["unrepresentable"].tolist(),
        strict=True,
    )
    results = []
    for index, (candidate, status, chosen, score, margin, probabilities, mass, cut, unknown) in enumerate(columns):
        good = status == OK
        tier = manifest.tiers[chosen] if good else None
        results.append(
            ItemResult(
                id=candidate.id,
                index=index,
                status=STATUSES[status],
                tier=tier.name if tier else None,
                label=tier.label if tier else None,
                band=tier.band if tier else None,
                score=score if good else None,
                margin=margin if good else None,
                probabilities=dict(zip(names, probabilities, strict=True)) if good else None,
                label_mass=mass if good and mass == mass else None,  # noqa: PLR0124 # NaN: the engine gave none
                truncated=fields_of(cut, manifest.prompt),
                unrepresentable=fields_of(unknown, manifest.prompt),
            )
        )
    return tuple(results)


def best_first(results: tuple[ItemResult, ...], top_n: int | None) -> tuple[ItemResult, ...]:
    """By score, then by position; items without a verdict last. Cut to `top_n`."""
    ranked = sorted(results, key=lambda r: (r.score is None, -(r.score or 0.0), r.index))
    return tuple(ranked[:top_n])


def _rounded(values: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[Any]:
    rounded: list[Any] = np.round(values.astype(np.float64), DIGITS).tolist()
    return rounded
