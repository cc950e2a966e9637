"""The cache in Redis, and everything that a Redis can do wrong."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest

from models.deadline import Deadline
from service.cache.breaker import BreakerState
from tests.redis_server import redis_server
from tests.service.cache.conftest import connect, eventually, remote_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from service.cache.remote import RemoteCache
    from tests.proxy import TcpProxy
    from tests.redis_server import RedisServer

NEVER = Deadline.never()
SHARED = b"shared-digest-16"
PAIRS = [(bytes([n]) * 16, bytes([n]) * 64) for n in range(32)]
KEYS, VALUES = [key for key, _ in PAIRS], [value for _, value in PAIRS]
NOTHING = [None] * len(PAIRS)


async def fill(remote: RemoteCache) -> None:
    """Write all pairs, and wait until they are there."""
    stored = remote.stats.stored
    remote.write(SHARED, PAIRS, 60.0)
    await eventually(lambda: remote.stats.stored == stored + len(PAIRS))


async def timed(remote: RemoteCache) -> float:
    """Read all pairs in vain; how many seconds that took."""
    started = time.monotonic()
    assert await remote.read(SHARED, KEYS, NEVER) == NOTHING
    return time.monotonic() - started


async def test_what_one_process_writes_another_reads_in_one_round_trip(server: RedisServer) -> None:
    """32 items are one command; what is not there is None in its place."""
    async with remote_at(server.port) as one, remote_at(server.port) as other:
        await fill(one)
        with server.client() as client:
            client.config_resetstat()
            assert await other.read(SHARED, [*KEYS, b"unknown", b""], NEVER) == [*VALUES, None, None]
            statistics = client.info("commandstats")
        assert isinstance(statistics, dict)
        assert statistics["cmdstat_mget"]["calls"] == 1
        assert set(statistics) <= {"cmdstat_mget", "cmdstat_config|resetstat", "cmdstat_info"}


async def test_values_live_as_long_as_they_are_told(server: RedisServer) -> None:
    """Redis forgets them by itself."""
    async with remote_at(server.port) as remote:
        remote.write(SHARED, PAIRS[:1], 0.05)
        remote.write(SHARED, PAIRS[1:2], 1_000.0)
        await eventually(lambda: remote.stats.stored == 2)
        await asyncio.sleep(0.2)
        assert await remote.read(SHARED, KEYS[:2], NEVER) == [None, VALUES[1]]
        with server.client() as client:
            (key,) = client.keys("*")
            assert 900 < client.ttl(key) <= 1_000


async def test_no_request_waits_for_the_first_connection(server: RedisServer, proxy: TcpProxy) -> None:
    """The first read only sets off a probe; the cache serves as soon as that has come back."""
    async with remote_at(server.port) as writer:
        await fill(writer)
    proxy.latency = 0.2
    async with remote_at(proxy.port, connected=False) as remote:
        assert await timed(remote) < 0.15
        assert remote.stats.timeouts == 0
        proxy.heal()
        await connect(remote)
        assert await remote.read(SHARED, KEYS, NEVER) == VALUES


def _late(proxy: TcpProxy) -> None:
    proxy.latency = 3.0


def _silent(proxy: TcpProxy) -> None:
    proxy.silent = True


def _reset(proxy: TcpProxy) -> None:
    proxy.refuses = True
    proxy.reset()


def _garbage(proxy: TcpProxy) -> None:
    proxy.rewrite = lambda answer: random.Random(1).randbytes(len(answer))


def _error(proxy: TcpProxy) -> None:
    proxy.rewrite = lambda _: b"-LOADING Redis is loading the dataset in memory\r\n"


def _other_shape(proxy: TcpProxy) -> None:
    proxy.rewrite = lambda _: b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"


def _other_type(proxy: TcpProxy) -> None:
    proxy.rewrite = lambda _: b"+OK\r\n"


def _half(proxy: TcpProxy) -> None:
    proxy.rewrite = lambda answer: answer[: len(answer) // 2]


FAULTS = [_late, _silent, _reset, _garbage, _error, _other_shape, _other_type, _half]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
async def test_a_fault_costs_at_most_the_timeout_once(
    server: RedisServer, proxy: TcpProxy, fault: Callable[[TcpProxy], None]
) -> None:
    """The first read waits its timeout, later ones not at all; once Redis is well again it serves again."""
    del server
    async with remote_at(proxy.port, redis_timeout_ms=100.0) as remote:
        await fill(remote)
        await connect(remote)
        assert await remote.read(SHARED, KEYS, NEVER) == VALUES
        fault(proxy)
        assert await timed(remote) < 1.0
        assert remote.reads.state is not BreakerState.CLOSED
        before = remote.stats.failures
        took = [await timed(remote) for _ in range(200)]
        assert sorted(took)[100] < 0.01
        assert sum(took) < 1.0
        assert remote.stats.failures - before <= 3  # probes, which nobody waited for
        proxy.heal()
        await connect(remote)
        assert await remote.read(SHARED, KEYS, NEVER) == VALUES


async def test_a_flapping_redis_is_asked_less_and_less(server: RedisServer, proxy: TcpProxy) -> None:
    """Well for a probe and late for every request: the pauses grow, so the cost does not."""
    del server
    async with remote_at(proxy.port, redis_timeout_ms=50.0) as remote:
        for _ in range(4):
            proxy.heal()
            await connect(remote)
            proxy.silent = True
            await timed(remote)
        assert remote.reads._pause > 0.3


async def test_requests_that_wait_together_fail_together(server: RedisServer, proxy: TcpProxy) -> None:
    """A hundred reads at the moment of the fault are one opening of the breaker; no more than the connections ask."""
    del server
    async with remote_at(proxy.port, redis_timeout_ms=100.0, redis_connections=4) as remote:
        await fill(remote)
        opened = remote.reads.opened
        proxy.silent = True
        started = time.monotonic()
        results = await asyncio.gather(*(remote.read(SHARED, KEYS, NEVER) for _ in range(100)))
        assert time.monotonic() - started < 1.0
        assert results == [NOTHING] * 100
        assert remote.stats.crowded >= 90 * len(KEYS)
        assert remote.reads.opened == opened + 1


async def test_redis_killed_and_started_again(tmp_path: Path) -> None:
    """Down is like empty; after the restart it is written and read again."""
    with redis_server(tmp_path) as server:
        async with remote_at(server.port) as remote:
            await fill(remote)
            server.kill()
            assert await timed(remote) < 1.0
            assert await timed(remote) < 0.5
            remote.write(SHARED, PAIRS, 60.0)
            await eventually(lambda: remote.stats.dropped == len(PAIRS))
            server.start()
            await connect(remote)
            assert await remote.read(SHARED, KEYS, NEVER) == NOTHING
            await eventually(lambda: remote.writes.state is not BreakerState.OPEN)
            await fill(remote)
            assert await remote.read(SHARED, KEYS, NEVER) == VALUES


async def test_redis_frozen(tmp_path: Path) -> None:
    """A stopped process accepts connections and answers nothing."""
    with redis_server(tmp_path) as server:
        async with remote_at(server.port, redis_timeout_ms=100.0) as remote:
            await fill(remote)
            server.freeze()
            assert await timed(remote) < 1.0
            assert await timed(remote) < 0.5
            server.thaw()
            await connect(remote)
            assert await remote.read(SHARED, KEYS, NEVER) == VALUES


@pytest.mark.parametrize("options", [("--maxmemory", "1mb"), ("--min-replicas-to-write", "1")])
async def test_a_redis_that_cannot_be_written_is_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Full or refusing writes: what could not be written is dropped and counted, and nobody waits."""
    with redis_server(tmp_path, *options) as server:
        async with remote_at(server.port) as remote:
            remote.write(SHARED, PAIRS, 60.0)
            await eventually(lambda: remote.stats.dropped == len(PAIRS))
            assert remote.writes.state is BreakerState.OPEN
            assert remote.reads.state is BreakerState.CLOSED
            remote.write(SHARED, PAIRS, 60.0)
            assert (remote.stats.dropped, remote.stats.stored) == (2 * len(PAIRS), 0)
            assert await remote.read(SHARED, KEYS, NEVER) == NOTHING
            assert remote.reads.state is BreakerState.CLOSED


async def test_a_read_only_replica_is_read(server: RedisServer, tmp_path: Path) -> None:
    """A replica behind the address serves what its master has."""
    with redis_server(tmp_path, "--replicaof", "127.0.0.1", str(server.port)) as replica:
        async with remote_at(server.port) as master, remote_at(replica.port) as remote:
            await fill(master)
            with replica.client() as client:
                await eventually(lambda: client.dbsize() == len(PAIRS))
            assert await remote.read(SHARED, KEYS, NEVER) == VALUES
            remote.write(SHARED, PAIRS, 60.0)
            await eventually(lambda: remote.stats.dropped == len(PAIRS))


async def test_a_password_is_used_and_a_wrong_one_is_like_no_redis(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why once, without the password."""
    with redis_server(tmp_path, "--requirepass", "opensesame") as server:
        right = f"redis://:opensesame@127.0.0.1:{server.port}/0"
        async with remote_at(0, redis_url=right) as remote:
            await fill(remote)
            assert await remote.read(SHARED, KEYS, NEVER) == VALUES
        async with remote_at(0, redis_url=right.replace("opensesame", "openbarley"), connected=False) as remote:
            await eventually(lambda: remote.stats.failures >= 2, remote)
            assert remote.reads.state is not BreakerState.CLOSED
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert "password" in told[0]
    assert "barley" not in caplog.text


async def test_a_full_queue_drops_and_counts(server: RedisServer, proxy: TcpProxy) -> None:
    """Write-behind is bounded: memory does not grow while Redis is slow."""
    del server
    async with remote_at(proxy.port, redis_queue=100) as remote:
        proxy.latency = 0.2
        for _ in range(20):
            remote.write(SHARED, PAIRS, 60.0)
        assert len(remote._queue) <= 100
        assert remote.stats.dropped >= 16 * len(PAIRS)


async def test_a_hurried_caller_waits_for_a_quarter_of_its_time(server: RedisServer, proxy: TcpProxy) -> None:
    """Its hurry is no fault of Redis: the answer may still come, and the breaker stays closed."""
    del server
    async with remote_at(proxy.port, redis_timeout_ms=20_000.0) as remote:
        proxy.latency = 1.5
        started = time.monotonic()
        assert await remote.read(SHARED, KEYS, Deadline.after(400.0)) == NOTHING
        assert time.monotonic() - started < 1.2
        await eventually(lambda: remote._reading == 0)
        assert remote.reads.state is BreakerState.CLOSED
        assert remote.stats.failures == 0


async def test_a_caller_that_leaves_breaks_nothing(server: RedisServer, proxy: TcpProxy) -> None:
    """Abandoned reads neither open the breaker nor leave an answer behind for the next."""
    del server
    async with remote_at(proxy.port, redis_connections=2) as remote:
        await fill(remote)
        connections = proxy.connections
        for n in range(40):
            read = asyncio.create_task(remote.read(SHARED, KEYS[n % 5 :], NEVER))
            await asyncio.sleep(0.0002 * (n % 7))
            read.cancel()
            await asyncio.wait([read])
        await eventually(lambda: remote._reading == 0)
        assert await remote.read(SHARED, KEYS[7:9], NEVER) == VALUES[7:9]
        assert remote.reads.state is BreakerState.CLOSED
        assert proxy.connections == connections


async def test_closing_writes_what_is_queued(server: RedisServer) -> None:
    """A rolling deploy does not lose the last answers."""
    async with remote_at(server.port) as remote:
        remote.write(SHARED, PAIRS, 60.0)
    with server.client() as client:
        assert client.dbsize() == len(PAIRS)
    assert not remote._tasks


async def test_keys_of_a_query_share_a_slot(server: RedisServer) -> None:
    """What stands in braces decides the slot of a Cluster, and a digest cannot bring braces along."""
    async with remote_at(server.port) as remote:
        remote.write(b"}{}{" * 4, [(b"{}" * 8, b"v")], 60.0)
    with server.client() as client:
        (key,) = client.keys("*")
    assert (key.count(b"{"), key.count(b"}")) == (1, 1)
    assert 0 < key.index(b"{") + 1 < key.index(b"}")
