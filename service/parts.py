"""Parts: items of a request computed in groups side by side, for a caller who wants results as they are done.

An engine merges the rows of concurrent calls and computes their shared prefix once, so that groups cost little more
than one call (docs/grpc.md).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from models.engines.port import ItemStatus
from service.judge import verdicts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from models.manifest import Manifest
    from service.reply import ItemResult
    from service.request import ScoreRequest
    from service.rows import Rows

PART_ITEMS: Final = 8

Compute: TypeAlias = "Callable[[Sequence[int]], Awaitable[Rows]]"
Tell: TypeAlias = "Callable[[Sequence[ItemResult]], None]"


@dataclass(frozen=True, slots=True)
class Parts:
    """Computes positions of one request group by group, and tells of each group's verdicts."""

    request: ScoreRequest
    manifest: Manifest
    compute: Compute
    tell: Tell

    async def __call__(self, positions: Sequence[int]) -> Rows:
        """Records for some positions, in their order.

        Raises:
            What `compute` raised first; the other groups are cancelled.
        """
        groups = [positions[n : n + PART_ITEMS] for n in range(0, len(positions), PART_ITEMS)]
        try:
            async with asyncio.TaskGroup() as tasks:
                computing = [tasks.create_task(self._part(group)) for group in groups]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return np.concatenate([task.result() for task in computing])

    async def _part(self, positions: Sequence[int]) -> Rows:
        rows = await self.compute(positions)
        results = verdicts(self.manifest, [self.request.candidates[n] for n in positions], rows)
        done = [
            replace(result, index=position)
            for result, position in zip(results, positions, strict=True)
            if result.status is ItemStatus.OK
        ]
        if done:
            self.tell(done)
        return rows
