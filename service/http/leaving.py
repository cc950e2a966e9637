"""A caller that leaves stops costing compute: what runs for it is cancelled, down into the engine's queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive

Result = TypeVar("Result")

PATIENCE: Final = 0.005  # seconds; what is answered sooner, from the cache, does not pay for a task that listens


async def while_connected(receive: Receive, work: Coroutine[object, object, Result]) -> Result:
    """Await work and cancel it when the caller leaves. The body must have been read.

    Raises:
        ClientDisconnect: the caller left; the work was cancelled.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 # a coroutine runs in a task
    loop = asyncio.get_running_loop()
    listener: asyncio.Task[None] | None = None
    left = False

    async def listen() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    def begin() -> None:
        nonlocal listener
        listener = loop.create_task(listen(), name="listen-for-disconnect")

    timer = loop.call_later(PATIENCE, begin)
    try:
        return await work
    except asyncio.CancelledError:
        if left and task.uncancel() == 0:  # else somebody cancels the request itself too: a shutdown
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        if listener is not None:
            listener.cancel()
