"""How a piece of work on an AsyncLLM ended: in time, too late, or with one of the port's errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from vllm.exceptions import MaxQueuedTokensError, QueueOverflowError, VLLMClientError

from models.errors import EngineBusyError, EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from models.deadline import Deadline


async def in_time(work: Awaitable[Any], lost: asyncio.Future[str], deadline: Deadline) -> bool:
    """Wait for the work, the deadline, or the loss of the engine, whichever is first; the work is over in any case.

    Returns:
        Whether the work finished. False: the deadline passed and it was cancelled.

    Raises:
        EngineUnavailableError: the engine died or hangs.
        EngineBusyError: its queue limit is reached.
        EngineError: it refused the request, or failed on it.
    """
    task = asyncio.ensure_future(work)
    remaining = deadline.remaining()
    try:
        await asyncio.wait(
            {task, lost},
            timeout=None if remaining == float("inf") else remaining,
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        if lost.done():
            raise EngineUnavailableError(f"vLLM: {lost.result()}")
        return False
    error = task.exception()
    if error is None:
        return True
    if isinstance(error, QueueOverflowError | MaxQueuedTokensError):
        raise EngineBusyError(f"vLLM's queue is full: {error}") from error
    if isinstance(error, VLLMClientError):
        raise EngineError(f"vLLM refused the request: {error}") from error
    # EngineDeadError, or anything that shows the connection to the engine is broken: another try may succeed
    raise EngineUnavailableError(f"vLLM failed in the middle of a request: {type(error).__name__}: {error}") from error
