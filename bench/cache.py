"""What a recalled request costs: from this process's memory, from Redis, and with a Redis that answers no more.

    .venv/bin/python bench/cache.py [--json FILE] [--items 32] [--requests 2000] [--quick]

Starts a redis-server. The peer, in the same run and in turns: a plain redis-py client that reads the same number of
items as JSON with one MGET, and checks nothing. Medians and 99th percentiles in microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import redis.asyncio
import uvloop

from bench.doors import bodies, quantile
from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.manifest import SHIPPED, load_manifest
from service.cache.breaker import BreakerState
from service.cache.cache import ResultCache
from service.cache.memory import OVERHEAD_BYTES
from service.cache.settings import CacheSettings
from service.fetch import Fetched, Fetcher
from service.rows import unscored
from service.schemas import ScoreBody
from tests.redis_server import redis_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from service.request import ScoreRequest
    from service.rows import Rows
    from tests.redis_server import RedisServer

NEVER = Deadline.never()
BASIS = Fetcher(None, 1.0).basis("none")
DIFFERENT = 64  # requests, in turn


async def fill(cache: ResultCache, asked: Sequence[ScoreRequest]) -> None:
    """Keep made-up scores for all items."""
    chance = np.random.default_rng(1)

    async def compute(positions: Sequence[int]) -> Rows:
        rows = unscored(len(positions), 4, ItemStatus.OK)
        rows["logprobs"] = np.log(chance.dirichlet([1.0] * 4, len(positions)))
        return rows

    for request in asked:
        recalled = await cache.recall("public", BASIS, request, NEVER)
        await cache.complete(recalled, Fetched(), compute, NEVER, 0.0)
    if cache.remote is not None:
        writer = cache.remote._writer  # noqa: SLF001 # writes behind; here they are waited for
        assert writer is not None
        await writer
        assert cache.remote.stats.stored == cache.stats.stores


async def connect(cache: ResultCache) -> None:
    """Wait until Redis was found well."""
    assert cache.remote is not None
    while cache.remote.reads.state is not BreakerState.CLOSED:
        await cache.remote.read(b"any", [b"thing"], NEVER)
        await asyncio.sleep(0.01)


async def timed(contenders: dict[str, Callable[[int], Awaitable[object]]], count: int) -> dict[str, float]:
    """Run them in turns; microseconds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for n in range(count):
        for name, run in contenders.items():
            started = time.perf_counter()
            await run(n)
            times[name].append((time.perf_counter() - started) * 1e6)
    figures = {}
    for name, values in times.items():
        figures[f"{name}_p50_us"] = round(statistics.median(values), 1)
        figures[f"{name}_p99_us"] = round(quantile(values, 0.99), 1)
    return figures


async def measure(server: RedisServer, items: int, count: int) -> dict[str, Any]:
    """All figures."""
    manifest = load_manifest(SHIPPED)
    asked = [ScoreBody.model_validate(body).request() for body in bodies(DIFFERENT, items)]
    url = f"redis://127.0.0.1:{server.port}/0"
    memory = ResultCache(CacheSettings(), manifest, "bench")
    settings = CacheSettings(memory_bytes=0, redis_url=url, redis_timeout_ms=50.0)
    remote = ResultCache(settings, manifest, "bench")
    await connect(remote)
    with server.client() as client:
        empty = client.info("memory")["used_memory"]
        await fill(remote, asked)
        entries = client.dbsize()
        per_entry = (client.info("memory")["used_memory"] - empty) / entries
    await fill(memory, asked)
    plain = redis.asyncio.Redis.from_url(url)
    row = json.dumps({"logprobs": [-0.1, -2.5, -7.25, -9.5], "truncated": [], "tokens": 31})
    keys = [[f"plain:{n}:{item}" for item in range(items)] for n in range(DIFFERENT)]
    for names in keys:
        await plain.mset(dict.fromkeys(names, row))

    async def recall(cache: ResultCache, n: int) -> None:
        recalled = await cache.recall("public", BASIS, asked[n % DIFFERENT], NEVER)
        assert not recalled.missing

    async def peer(n: int) -> None:
        values = await plain.mget(keys[n % DIFFERENT])
        assert all(json.loads(value) for value in values if value)

    contenders: dict[str, Callable[[int], Awaitable[object]]] = {
        "memory": lambda n: recall(memory, n),
        "redis": lambda n: recall(remote, n),
        "plain_redis_json": peer,
    }
    figures = await timed(contenders, count)
    server.freeze()
    started = time.perf_counter()
    await remote.recall("public", BASIS, asked[0], NEVER)
    figures["frozen_redis_first_us"] = round((time.perf_counter() - started) * 1e6, 1)

    async def miss(n: int) -> None:
        await remote.recall("public", BASIS, asked[n % DIFFERENT], NEVER)

    figures |= await timed({"frozen_redis": miss}, count)
    server.thaw()
    await remote.close()
    await plain.aclose()
    return {
        "items": items,
        "requests": count,
        **figures,
        "redis_bytes_per_item": round(per_entry),
        "memory_bytes_per_item": 16 + 64 + OVERHEAD_BYTES,
    }


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    args = parser.parse_args()
    count = 200 if args.quick else args.requests
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server(Path(folder)) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        figures = runner.run(measure(server, args.items, count))
    for name, value in figures.items():
        print(f"{name:28} {value}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
