"""The self-test: pairs with known tiers through the live engine. A wrong template, label or conversion shows here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.canaries import canary_problems, canary_prompts
from models.deadline import Deadline
from models.engines.port import ItemStatus

if TYPE_CHECKING:
    from service.pipeline import Judge


async def failing_canaries(judge: Judge) -> list[str]:
    """One sentence for each canary of the manifest that does not come out as the manifest says.

    Raises:
        EngineError: the engine did not answer at all.
    """
    rows = []
    for prefix, suffix in canary_prompts(judge.manifest, judge.writer):
        scores = await judge.engine.score(prefix, [suffix], Deadline.never())
        answered = scores.status[0] is ItemStatus.OK
        rows.append(scores.logprobs[0] if answered else np.full(len(judge.manifest.tiers), np.nan, np.float32))
    return canary_problems(judge.manifest, np.array(rows, dtype=np.float32)) if rows else []
