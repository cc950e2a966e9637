"""A real Redis, a proxy in front of it, and caches on them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from models.deadline import Deadline
from service.cache.breaker import BreakerState
from service.cache.remote import RemoteCache
from service.cache.settings import CacheSettings
from tests.proxy import TcpProxy
from tests.redis_server import SECONDS, RedisServer, redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

# Ample for a healthy Redis on a busy machine; tests of what a slow one costs choose their own.
TIMEOUT_MS = 500.0


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(_server: RedisServer) -> RedisServer:
    """A running, empty Redis."""
    with _server.client() as client:
        client.flushall()
    return _server


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[TcpProxy]:
    """A proxy in front of it."""
    async with TcpProxy(server.port) as proxy:
        yield proxy


def settings_for(port: int, **settings: Any) -> CacheSettings:
    """Settings for a Redis at a port."""
    settings = {"redis_url": f"redis://127.0.0.1:{port}/0", "redis_timeout_ms": TIMEOUT_MS} | settings
    return CacheSettings(**settings)


@asynccontextmanager
async def remote_at(port: int, *, connected: bool = True, **settings: Any) -> AsyncIterator[RemoteCache]:
    """A cache in the Redis at a port; it has found Redis well already if `connected`."""
    remote = RemoteCache(settings_for(port, **settings))
    try:
        if connected:
            await connect(remote)
        yield remote
    finally:
        await remote.close()


async def connect(remote: RemoteCache) -> None:
    """Have the cache look at Redis until it finds it well."""
    await eventually(lambda: remote.reads.state is BreakerState.CLOSED, remote)


async def eventually(holds: Callable[[], bool], remote: RemoteCache | None = None) -> None:
    """Wait until something holds; requests go on meanwhile, if a cache is given."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it never came to hold"
        if remote is not None:
            await remote.read(b"any", [b"thing"], Deadline.never())
        await asyncio.sleep(0.005)
