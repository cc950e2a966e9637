"""The probe: pairs with known tiers through the live engine. A wrong template, label or conversion shows here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.canaries import canary_problems, canary_prompts
from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.errors import EngineError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from service.pipeline import Judge

GRACE_SECONDS = 0.5  # past the deadline, for a forward pass that began in time; an engine that hangs takes no longer


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of one.

    Attributes:
        wrong: one sentence for each canary that was answered, and not as the manifest says.
        silent: why a canary was not answered; empty when all were. No answer is not a wrong one.
    """

    wrong: tuple[str, ...] = ()
    silent: str = ""

    @property
    def right(self) -> bool:
        """Every canary was answered as the manifest says."""
        return not self.wrong and not self.silent


async def probe(judge: Judge, deadline: Deadline) -> Probe:
    """Send the manifest's canaries through the engine, all at once. One token where it has none. Never raises."""
    manifest = judge.manifest
    label = manifest.label_token_ids[:1]
    prompts = canary_prompts(manifest, judge.writer) or [(label, label)]
    limit = None if deadline.remaining() == float("inf") else deadline.remaining() + GRACE_SECONDS
    rows: list[NDArray[np.float32] | None] = [None] * len(prompts)
    silent: list[str] = []

    async def ask(index: int, prefix: Sequence[int], suffix: Sequence[int]) -> None:
        try:
            scores = await judge.engine.score(prefix, [suffix], deadline)
        except EngineError as error:
            silent.append(f"the engine does not answer: {error}")
        else:
            if scores.status[0] is ItemStatus.OK and np.isfinite(scores.logprobs[0]).all():
                rows[index] = scores.logprobs[0]
            else:
                late = scores.status[0] is ItemStatus.EXPIRED
                silent.append("no answer in time" if late else "the engine fails on it")

    try:
        async with asyncio.timeout(limit), asyncio.TaskGroup() as tasks:
            for index, (prefix, suffix) in enumerate(prompts):
                tasks.create_task(ask(index, prefix, suffix), name=f"canary {index}")
    except TimeoutError:
        silent.append("no answer in time")
    answered = [(canary, row) for canary, row in zip(manifest.canaries, rows, strict=False) if row is not None]
    wrong: list[str] = []
    if answered:
        seen = manifest.model_copy(update={"canaries": tuple(canary for canary, _ in answered)})
        wrong = canary_problems(seen, np.array([row for _, row in answered], dtype=np.float32))
    return Probe(tuple(wrong), silent[0] if silent else "")


async def unfit(judge: Judge) -> str:
    """What keeps a judge that was just opened from being used; empty when nothing does. Warms it up."""
    try:
        await judge.engine.warm_up()
        return "; ".join(await failing_canaries(judge))
    except ModelError as error:
        return str(error)


async def failing_canaries(judge: Judge, deadline: Deadline | None = None) -> list[str]:
    """What keeps a judge from being used: one sentence for each wrong canary, and one when some were not answered."""
    found = await probe(judge, deadline or Deadline.never())
    return [*found.wrong, *([found.silent] if found.silent else [])]
