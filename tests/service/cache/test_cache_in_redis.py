"""The pipeline with its cache in a real Redis: shared, corrupted, garbled, gone."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.service.cache.cached import MANY, answer, cached_on, in_redis, written
from tests.service.cache.conftest import connect, settings_for
from tests.service.conftest import FakeKnowledge

if TYPE_CHECKING:
    from pathlib import Path

    from tests.proxy import TcpProxy
    from tests.redis_server import RedisServer


async def test_a_process_finds_in_redis_what_another_has_computed(checkpoint: Path, server: RedisServer) -> None:
    """With the chunk's reference; and keeps it in its own memory then."""
    async with in_redis(checkpoint, server.port, knowledge=FakeKnowledge()) as one:
        first = await one.score(*MANY)
        await written(one, len(MANY) + 1)
    searching = FakeKnowledge(raises=AssertionError("searched"))
    other = cached_on(checkpoint, knowledge=searching, configured=settings_for(server.port))
    remote = other.cache.remote
    assert remote is not None
    await connect(remote)
    assert answer(await other.score(*MANY)) == answer(first)
    other.cache.remote = None
    assert answer(await other.score(*MANY)) == answer(first)
    assert other.computed == 0
    assert (other.cache.stats.remote_hits, other.cache.stats.memory_hits) == (len(MANY), len(MANY))
    await remote.close()


async def test_no_wrong_score_comes_out_of_a_corrupted_redis(checkpoint: Path, server: RedisServer) -> None:
    """Flipped bits, swapped, shortened, doubled and random values are misses; every answer stays right."""
    chance = random.Random(7)
    expected = answer(await cached_on(checkpoint, knowledge=FakeKnowledge()).score(*MANY))
    corrupted = 0
    for _ in range(30):
        async with in_redis(checkpoint, server.port, knowledge=FakeKnowledge()) as cached:
            await cached.score(*MANY)
            await written(cached, cached.cache.stats.stores)
        with server.client() as client:
            keys = sorted(client.keys("*"))
            values = [bytes(value) for value in client.mget(keys)]
            for key, value in zip(keys, _spoilt(values, chance), strict=True):
                client.set(key, value)
        async with in_redis(checkpoint, server.port, knowledge=FakeKnowledge()) as cached:
            assert answer(await cached.score(*MANY)) == expected
            corrupted += cached.cache.stats.corrupted
            await written(cached, cached.cache.stats.stores)
    assert corrupted > 100


def _spoilt(values: list[bytes], chance: random.Random) -> list[bytes]:
    spoilt = list(values)
    for at in chance.sample(range(len(values)), len(values) // 2):
        value = values[at]
        flipped = bytearray(value)
        flipped[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        spoilt[at] = chance.choice(
            [
                bytes(flipped),
                chance.choice(values),
                value[: chance.randrange(len(value))],
                value * 2,
                chance.randbytes(64),
            ]
        )
    return spoilt


async def test_no_wrong_score_comes_out_of_a_connection_that_garbles(
    checkpoint: Path, server: RedisServer, proxy: TcpProxy
) -> None:
    """Changed, moved and swapped bytes on the wire cost hits, never a right answer."""
    expected = answer(await cached_on(checkpoint).score(*MANY))
    async with in_redis(checkpoint, server.port) as cached:
        await cached.score(*MANY)
        await written(cached, len(MANY))
    chance = random.Random(3)

    def garble(data: bytes) -> bytes:
        if len(data) < 1_000:
            return data
        changed = bytearray(data)
        if chance.random() < 0.5:
            for _ in range(3):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        else:  # two values change places: the shape stays right
            one, other = (100 + 71 * chance.randrange(8) for _ in range(2))
            changed[one : one + 64], changed[other : other + 64] = changed[other : other + 64], changed[one : one + 64]
        return bytes(changed)

    spoilt = 0
    async with in_redis(checkpoint, proxy.port) as cached:
        assert cached.cache.remote is not None
        for _ in range(60):
            proxy.rewrite = garble
            assert answer(await cached.score(*MANY)) == expected
            proxy.heal()
            await connect(cached.cache.remote)
        spoilt = cached.cache.stats.corrupted + cached.cache.remote.stats.failures
    assert spoilt > 30


async def test_a_dead_redis_costs_no_answer(checkpoint: Path, proxy: TcpProxy) -> None:
    """Requests go on as if there were none."""
    async with in_redis(checkpoint, proxy.port) as cached:
        await cached.score("abcd")
        proxy.refuses = True
        proxy.reset()
        for _ in range(5):
            assert (await cached.score("abcd")).results[0].status == "ok"
