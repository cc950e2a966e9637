"""The cache in Redis, shared by all processes. Never in anybody's way: a read waits a few milliseconds at most, once.

Whatever goes wrong (down, slow, full, read-only, wrong password, garbage) looks like an empty cache. The first failure
opens a breaker; then nothing is asked until a probe, which no request waits for, has found Redis well again. Writes are
queued and written behind; when they cannot be, they are dropped and counted. Removals are not: what must go may not be
served for want of one write, so they wait until Redis takes them.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64encode
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.cache.breaker import Breaker, BreakerState
from service.cache.redis import close_client, open_client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from models.deadline import Deadline
    from service.cache.redis import Client
    from service.cache.settings import CacheSettings

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 1.0  # for work that no request waits for: connecting, probing, writing
READ_SHARE: Final = 0.25  # of a caller's remaining time, at most
BATCH: Final = 64  # writes in one round trip; packing more would hold the event loop for too long
REMOVALS: Final = 100_000  # that may wait beyond a full queue: Redis can be away for longer than memory lasts
FLUSH_SECONDS: Final = 0.5  # at the end


@dataclass(slots=True)
class RemoteStats:
    """Counters since the start. Items but for `failures` and `timeouts`, which are calls."""

    stored: int = 0
    dropped: int = 0
    crowded: int = 0  # not asked for: every connection was in use
    failures: int = 0
    timeouts: int = 0


class RemoteCache:
    """Bytes by key in Redis.

    Args:
        settings: with an address.
        open_: makes the client; does not connect.
    """

    def __init__(self, settings: CacheSettings, open_: Callable[[CacheSettings, float], Client] = open_client) -> None:
        self.stats = RemoteStats()
        self.reads = Breaker(open_at_first=True)  # so that no request waits for the first connection
        self.writes = Breaker(first_seconds=1.0)
        self._timeout = settings.redis_timeout_ms / 1000.0
        self._patience = max(PATIENCE_SECONDS, 2.0 * self._timeout)
        self._client = open_(settings, self._patience)
        self._connections = settings.redis_connections
        self._limit = settings.redis_queue
        self._queue: deque[tuple[bytes, bytes | None, int]] = deque()  # name, value or None to remove it, milliseconds
        self._writer: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._reading = 0
        self._told = ""  # what the log has last said to be wrong
        self._tasks: set[asyncio.Task[Any]] = set()

    async def read(self, shared: bytes, keys: Sequence[bytes], deadline: Deadline) -> list[bytes | None]:
        """One round trip: a value or None for each key, in their order; None for all when Redis cannot say in time.

        Args:
            shared: digest of what the keys share: they lie in one slot of a Cluster.
            keys: N digests; an empty one stands for `shared` itself.
            deadline: of the request; a quarter of what is left of it is waited for at most.
        """
        nothing: list[bytes | None] = [None] * len(keys)
        if self.reads.state is not BreakerState.CLOSED:
            if self.reads.take_probe():
                self._probing = self._own(self._probe(_names(shared, keys)))
            return nothing
        if self._reading >= self._connections:
            self.stats.crowded += len(keys)
            return nothing
        self._reading += 1
        call = self._own(self._get(_names(shared, keys)))
        # The call may outlast its caller: what it finds out about Redis does not depend on one caller's hurry.
        timer = asyncio.get_running_loop().call_later(self._timeout, self._late, call)
        call.add_done_callback(lambda _: timer.cancel())
        call.add_done_callback(self._ended)
        await asyncio.wait({call}, timeout=deadline.within(self._timeout, READ_SHARE).remaining())
        if not call.done():
            await asyncio.sleep(0)  # the loop itself may be late; what has arrived by now counts
        return call.result() if call.done() and not call.cancelled() and call.exception() is None else nothing

    def write(self, shared: bytes, values: Sequence[tuple[bytes, bytes]], seconds: float) -> None:
        """Queue pairs of key and value for writing, to live for so many seconds. Returns at once."""
        if self.writes.state is BreakerState.OPEN or len(self._queue) + len(values) > self._limit:
            self.stats.dropped += len(values)
            return
        names = _names(shared, [key for key, _ in values])
        milliseconds = max(1, int(seconds * 1000.0))
        self._queue.extend((name, value, milliseconds) for name, (_, value) in zip(names, values, strict=True))
        self._start_writer()

    def forget(self, shared: bytes, key: bytes) -> None:
        """Queue the removal of a value, behind what is queued, also when the queue is full. Returns at once."""
        if len(self._queue) >= self._limit + REMOVALS:
            self.stats.dropped += 1
            return
        self._queue.extend((name, None, 0) for name in _names(shared, [key]))
        self._start_writer()

    async def close(self) -> None:
        """Write what is queued if that is quick, end every task, close the connections."""
        if self._writer is not None:
            await asyncio.wait({self._writer}, timeout=FLUSH_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await close_client(self._client)
        except Exception as error:  # noqa: BLE001 # the process ends; nothing depends on a good farewell
            log.info("cache: closing Redis: %s", type(error).__name__)

    def _start_writer(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = self._own(self._write())

    async def _get(self, names: list[bytes]) -> list[bytes | None]:
        values = await self._client.mget(names)
        if not (isinstance(values, list) and len(values) == len(names)):
            raise InvalidResponse("not one value for each key")
        found = [value for value in values if value is None or isinstance(value, bytes)]
        if len(found) != len(names):
            raise InvalidResponse("a value that is not bytes")
        return found

    def _late(self, call: asyncio.Task[list[bytes | None]]) -> None:
        """The timeout has passed; whatever the loop has received until now may still be handed over."""
        asyncio.get_running_loop().call_soon(self._too_late, call)

    def _too_late(self, call: asyncio.Task[list[bytes | None]]) -> None:
        if not call.done():
            call.cancel()
            self._failed("read", self.reads, TimeoutError())

    def _ended(self, call: asyncio.Task[list[bytes | None]]) -> None:
        self._reading -= 1
        if not call.cancelled() and (error := call.exception()) is not None:
            self._failed("read", self.reads, error)

    async def _probe(self, names: list[bytes]) -> None:
        """Ask with patience, on every connection so that all are made; then as hurriedly as a request would."""
        try:
            async with asyncio.timeout(self._patience):
                await self._get(names)  # alone: a Cluster's client learns its nodes, and is disturbed by company
                await asyncio.gather(*(self._get(names) for _ in range(self._connections)))
            async with asyncio.timeout(self._timeout):
                await self._get(names)
        except Exception as error:  # noqa: BLE001 # whatever Redis does, by contract
            self._failed("probe", self.reads, error)
        else:
            self._told = ""
            log.info("cache: Redis answers")
            self.reads.succeeded()

    async def _write(self) -> None:
        """Write until the queue is empty; not beside a probe, which may be what connects."""
        while self._queue:
            if self._probing is not None and not self._probing.done():
                await asyncio.wait({self._probing})
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            if self.writes.state is not BreakerState.CLOSED and not self.writes.take_probe():
                if self._give_up(batch):
                    await asyncio.sleep(self.writes.remaining)
                continue
            try:
                async with asyncio.timeout(self._patience):
                    pipeline = self._client.pipeline(transaction=False)
                    for name, value, milliseconds in batch:
                        if value is None:
                            pipeline.delete(name)
                        else:
                            pipeline.set(name, value, px=milliseconds)
                    await pipeline.execute()
            except Exception as error:  # noqa: BLE001 # whatever Redis does, by contract
                self._give_up(batch)
                self._failed("write", self.writes, error)
            else:
                self.stats.stored += sum(value is not None for _, value, _ in batch)
                self.writes.succeeded()

    def _give_up(self, batch: Sequence[tuple[bytes, bytes | None, int]]) -> bool:
        """Drop the values of a batch; removals go back to the front of the queue. Whether there are any."""
        removals = [entry for entry in batch if entry[1] is None]
        self.stats.dropped += len(batch) - len(removals)
        self._queue.extendleft(reversed(removals))
        return bool(removals)

    def _failed(self, doing: str, breaker: Breaker, error: BaseException) -> None:
        self.stats.failures += 1
        self.stats.timeouts += isinstance(error, TimeoutError | RedisTimeoutError)
        breaker.failed()
        reason = f"{doing}: {type(error).__name__}: {error}"[:200]
        if reason != self._told:
            log.warning("cache: Redis fails and is left alone for a while: %s", reason)
        self._told = reason

    def _own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _names(shared: bytes, keys: Sequence[bytes]) -> list[bytes]:
    """Keys in Redis. What stands in braces decides the slot; base64 keeps braces out of it."""
    start = b"tierwise:{" + urlsafe_b64encode(shared) + b"}"
    return [start + urlsafe_b64encode(key) for key in keys]
