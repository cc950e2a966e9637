"""The self-test: pairs with known tiers through the live engine. A wrong template, label or conversion shows here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.prompt import Item
from models.tiers import judge

if TYPE_CHECKING:
    from models.manifest import Canary
    from service.pipeline import Judge


async def failing_canaries(judge_: Judge) -> list[str]:
    """One sentence for each canary of the manifest that does not come out as its expected tier.

    Raises:
        EngineError: the engine did not answer at all.
    """
    return [problem for canary in judge_.manifest.canaries if (problem := await _problem(judge_, canary))]


async def _problem(judge_: Judge, canary: Canary) -> str | None:
    manifest = judge_.manifest
    item = Item(**canary.item.model_dump())
    prompt = judge_.writer.write(canary.query, canary.chunk, [item])
    scores = await judge_.engine.score(prompt.prefix.ids, [prompt.suffixes[0].ids], Deadline.never())
    pair = f"canary {canary.query!r} x {canary.item.title!r}"
    if scores.status[0] is not ItemStatus.OK or not np.isfinite(scores.logprobs).all():
        return f"{pair}: expected {canary.tier}, the engine gave no answer"
    judged = judge(scores.logprobs, beta=manifest.beta, temperature=manifest.temperature)
    tier = manifest.tiers[judged.tiers[0]].name
    return None if tier == canary.tier else f"{pair}: expected {canary.tier}, scored {tier}"
