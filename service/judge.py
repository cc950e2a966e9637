"""Judge: label log-probabilities -> one verdict per item, best first. Pure."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from models import tiers
from models.engines.port import ItemStatus
from service.reply import ItemResult
from service.rows import OK, STATUSES, fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.manifest import Manifest
    from service.request import Candidate
    from service.rows import Rows

DIGITS = 6  # float32 carries seven; more would be noise on the wire


def verdicts(manifest: Manifest, candidates: Sequence[Candidate], rows: Rows) -> tuple[ItemResult, ...]:
    """Results of N items in the order of the request, from their N records."""
    ok = rows["status"] == OK
    # Rows without a verdict are judged as if uniform and never shown: no NaN travels through the arithmetic.
    logprobs = rows["logprobs"] if ok.all() else np.where(ok[:, None], rows["logprobs"], np.float32(0.0))
    judged = tiers.judge(logprobs, beta=manifest.beta, temperature=manifest.temperature)
    shown = [(tier.name, tier.label, tier.band) for tier in manifest.tiers]
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
    for index, (candidate, status, tier, score, margin, shares, mass, cut, unknown) in enumerate(columns):
        truncated = fields_of(cut, manifest.prompt) if cut else ()
        unrepresentable = fields_of(unknown, manifest.prompt) if unknown else ()
        if status != OK:
            result = ItemResult(
                candidate.id,
                index,
                STATUSES[status],
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                truncated,
                unrepresentable,
            )
        else:
            name, label, band = shown[tier]
            label_mass = None if isnan(mass) else mass
            probabilities = dict(zip(names, shares, strict=True))
            result = ItemResult(
                candidate.id, index, ItemStatus.OK, name, label, band, score, margin, probabilities, label_mass,
                truncated, unrepresentable,
            )  # fmt: skip
        results.append(result)
    return tuple(results)


def best_first(results: tuple[ItemResult, ...], top_n: int | None) -> tuple[ItemResult, ...]:
    """By score, then by position; items without a verdict last. Cut to `top_n`."""
    ranked = sorted(results, key=lambda r: (r.score is None, -(r.score or 0.0), r.index))
    return tuple(ranked[:top_n])


def _rounded(values: NDArray[np.float32]) -> list[Any]:
    rounded: list[Any] = values.astype(np.float64).round(DIGITS).tolist()
    return rounded
