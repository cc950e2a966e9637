"""A shared cache that is killed, stopped, slowed down, cut off and lied for: every answer right, none of them late."""

from __future__ import annotations

import asyncio
import random
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.chaos.conftest import LONG, QUICK_HEALTH, Caller, calling
from tests.proxy import TcpProxy
from tests.redis_server import RedisServer, redis_server
from tests.service.processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

CALLS = 100 if LONG else 10
ROUNDS = 2 if LONG else 1


class Stage:
    """A service without a memory of its own, its Redis, and the proxy between them."""

    def __init__(self, caller: Caller, redis: RedisServer, proxy: TcpProxy) -> None:
        self.caller = caller
        self.redis = redis
        self.proxy = proxy

    async def until_cached(self, body: dict[str, Any]) -> None:
        """Call until Redis answers for every item: the breaker lets it in again when it is well."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                if (await self.caller.score(body)).cached == len(body["items"]):
                    return
                await asyncio.sleep(0.2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """One for all faults: each test leaves it whole."""
    with redis_server(folder / "redis") as redis:
        async with TcpProxy(redis.port) as proxy:
            cache = {"redis_url": f"redis://127.0.0.1:{proxy.port}/0", "memory_bytes": 0, "redis_timeout_ms": 100.0}
            async with calling(folder, cache=cache, deadline_ms=60_000, health=QUICK_HEALTH) as caller:
                yield Stage(caller, redis, proxy)


def killed(stage: Stage) -> None:
    """Gone with all it held."""
    stage.redis.kill()


def stopped(stage: Stage) -> None:
    """Connections stay, nothing answers."""
    stage.redis.freeze()


def late(stage: Stage) -> None:
    """Every answer comes after the cache's own timeout."""
    stage.proxy.latency = 1.0


def silent(stage: Stage) -> None:
    """Answers are held back."""
    stage.proxy.silent = True


def cut_off(stage: Stage) -> None:
    """Connections are reset, new ones too."""
    stage.proxy.refuses = True
    stage.proxy.reset()


def slow_to_close(stage: Stage) -> None:
    """Redis is gone, and connections to it take seconds to say so."""
    stage.proxy.linger = 5.0
    stage.redis.kill()


def corrupting(stage: Stage) -> None:
    """Bits of every answer are turned."""
    chance = random.Random(7)

    def turn(part: bytes) -> bytes:
        turned = bytearray(part)
        for _ in range(1 + len(part) // 64):
            turned[chance.randrange(len(part))] ^= 1 << chance.randrange(8)
        return bytes(turned)

    stage.proxy.rewrite = turn


MOST_TELLING = (killed, stopped, silent, corrupting)
FAULTS = (*MOST_TELLING, late, cut_off, slow_to_close) if LONG else MOST_TELLING


def mend(stage: Stage, fault: Callable[[Stage], None]) -> None:
    """Undo a fault."""
    if fault in {killed, slow_to_close}:
        stage.redis.start()
    if fault is stopped:
        stage.redis.thaw()
    stage.proxy.heal()
    stage.proxy.reset()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_redis_costs_no_answer_and_no_score(
    stage: Stage, body: dict[str, Any], fault: Callable[[Stage], None]
) -> None:
    """Every call is answered with the right scores by the engine, ready all the time, and the cache comes back."""
    body = {**body, "items": body["items"][:2]}
    for _ in range(ROUNDS):
        right = await stage.caller.score(body)
        await stage.until_cached(body)
        fault(stage)
        seconds = []
        for _ in range(CALLS):
            answer = await stage.caller.score(body)
            assert answer.status == 200
            assert answer.verdicts == right.verdicts
            seconds.append(answer.seconds)
        assert stage.caller.service.ready()
        worst, usual = max(seconds) * 1000, median(seconds) * 1000
        mend(stage, fault)
        await stage.until_cached(body)
        again = await stage.caller.score(body)
        assert again.verdicts == right.verdicts
        print(f"redis {fault.__name__}: calls took {usual:.1f} ms, the slowest {worst:.1f} ms")  # noqa: T201
