"""What must go from Redis goes, whatever state Redis is in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.cache.breaker import BreakerState
from tests.service.cache.conftest import eventually, remote_at
from tests.service.cache.test_remote import KEYS, NEVER, PAIRS, SHARED, VALUES, fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.proxy import TcpProxy
    from tests.redis_server import RedisServer


def cut(proxy: TcpProxy) -> None:
    """Close every connection, and take no new one."""
    proxy.refuses = True
    proxy.reset()


async def test_what_must_go_is_removed_however_long_the_queue(server: RedisServer) -> None:
    """Removals are not dropped for want of room, and come after the writes that they undo."""
    async with remote_at(server.port, redis_queue=len(PAIRS)) as remote:
        remote.write(SHARED, PAIRS, 60.0)
        for key in KEYS[1:]:
            remote.forget(SHARED, key)
        await eventually(lambda: not remote._queue and remote.stats.stored == len(PAIRS))
        await eventually(lambda: remote._writer is not None and remote._writer.done())
        assert await remote.read(SHARED, KEYS[:2], NEVER) == [VALUES[0], None]
        with server.client() as client:
            assert client.dbsize() == 1


async def test_what_must_go_outlasts_a_redis_that_cannot_be_written(server: RedisServer, proxy: TcpProxy) -> None:
    """Removals of a write that failed, and those that come while writing pauses, are made once Redis is well."""
    async with remote_at(proxy.port) as remote:
        await fill(remote)
        cut(proxy)
        for key in KEYS[:8]:
            remote.forget(SHARED, key)
        await eventually(lambda: remote.writes.state is BreakerState.OPEN)
        for key in KEYS[8:]:
            remote.forget(SHARED, key)
        proxy.heal()
        with server.client() as client:
            await eventually(lambda: client.dbsize() == 0)
        assert remote.stats.dropped == 0


async def test_what_must_go_waits_without_haste_and_without_end(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis is away the queue is bounded, the writer sleeps, and closing ends it."""
    monkeypatch.setattr("service.cache.remote.REMOVALS", 100)
    async with remote_at(proxy.port, redis_queue=10) as remote:
        cut(proxy)
        for n in range(200):
            remote.forget(SHARED, bytes([n]) * 16)
        await eventually(lambda: remote.writes.state is BreakerState.OPEN)
        turns: list[object] = []
        give_up = remote._give_up

        def counted(batch: Sequence[tuple[bytes, bytes | None, int]]) -> bool:
            turns.append(batch)
            return give_up(batch)

        monkeypatch.setattr(remote, "_give_up", counted)
        await asyncio.sleep(0.3)
        assert len(turns) <= 2
        assert len(remote._queue) == 110
        assert remote.stats.dropped == 90
    assert not remote._tasks
