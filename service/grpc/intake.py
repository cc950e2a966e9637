"""Reading messages, few at a time: gRPC tells the length of one only when all of it is here, too late for admission.

A message that is not read yet holds `UNREAD_BYTES` at most, one that is being read up to `limits.body_bytes`.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from service.errors import MalformedBodyError, OverloadedError, SlowRequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from service.grpc.calls import Context
    from service.settings import Settings

UNREAD_BYTES: Final = 65_535  # what HTTP/2 lets a caller send on a stream, or a connection, unless told otherwise
MOST_WAITING: Final = 1_024  # callers with a key
_MOMENT: Final = 0.05  # seconds


class Intake:
    """Room for messages that nothing else counts yet.

    Args:
        most: messages that are read at a time; and as many streams, where one may come at any time.
        waiting: calls that wait for room.
        seconds: for one message to arrive, or for room for a stream.
    """

    def __init__(self, most: int, waiting: int, seconds: float) -> None:
        self._messages = asyncio.Semaphore(most)
        self._streams = asyncio.Semaphore(most)
        self._most_waiting = waiting
        self._waiting = 0
        self._seconds = seconds

    async def next(self, context: Context) -> bytes | None:
        """The next message of a call, None when there are no more.

        Raises:
            SlowRequestError: it did not come in time.
            OverloadedError: too many wait already.
        """
        await self._take(self._messages)
        try:
            async with asyncio.timeout(self._seconds):
                raw = await context.read()
        except TimeoutError:
            raise SlowRequestError(f"send the whole message within {self._seconds:g} seconds") from None
        finally:
            self._messages.release()
        return raw if isinstance(raw, bytes) else None

    async def only(self, context: Context) -> bytes:
        """The message of a call that has one.

        Raises:
            SlowRequestError, OverloadedError: as `next`.
            MalformedBodyError: there is none.
        """
        if (raw := await self.next(context)) is None:
            # It looks the same when the caller has left or the message is too long, but then a cancellation follows.
            await asyncio.sleep(_MOMENT)
            raise MalformedBodyError("this call has no message")
        return raw

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[None]:
        """The time in which a caller may send on a stream.

        Raises:
            OverloadedError: others do.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await self._take(self._streams)
        except TimeoutError:
            raise OverloadedError("too many streams are open", retry_after_ms=1000) from None
        try:
            yield
        finally:
            self._streams.release()

    async def _take(self, room: asyncio.Semaphore) -> None:
        if self._waiting >= self._most_waiting and room.locked():
            raise OverloadedError("too many callers wait to be read", retry_after_ms=1000)
        self._waiting += 1
        try:
            await room.acquire()
        finally:
            self._waiting -= 1


def open_intake(settings: Settings) -> Intake:
    """For callers with a key: as many messages at a time as fit into their part of `in_flight_bytes`."""
    room = settings.admission.in_flight_bytes // settings.workers
    return Intake(max(1, room // settings.limits.body_bytes), MOST_WAITING, settings.connections.body_seconds)
