"""Mixed traffic for a while: memory and file descriptors stay flat."""

from __future__ import annotations

import asyncio
import os
import random
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from service.demo.candidates import QUERIES, read_catalogue
from tests.chaos.conftest import LONG, QUICK_HEALTH, Caller, calling
from tests.chaos.footprint import Footprint, footprint_of

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = float(os.environ.get("CHAOS_SECONDS", "360" if LONG else "20"))
CALLERS = 3
MEGABYTE = 2**20
MOST_GROWTH = 24 * MEGABYTE  # from the second third to the last: allocators breathe, leaks grow


async def traffic(caller: Caller, chance: random.Random, until: float) -> int:
    """Calls of all sizes: some new, some seen before, some too late, one in a while that is wrong."""
    products = read_catalogue()
    calls = 0
    while time.monotonic() < until:
        items: list[dict[str, Any]] = chance.sample(products, chance.choice((1, 2, 4, 8, 16, 32)))
        if chance.random() < 0.7:
            items = [{**item, "title": f"{item['title']} {chance.randrange(10**6)}"} for item in items]
        body: dict[str, Any] = {"query": chance.choice(QUERIES), "items": items, "deadline_ms": 30_000}
        kind = chance.random()
        if kind < 0.05:
            body["deadline_ms"] = 1
        elif kind < 0.1:
            body["items"] = [{"id": "a"}]
        answer = await caller.post(body)
        assert answer in {200, 422, 503, 504}
        calls += 1
    return calls


async def test_memory_and_descriptors_stay_flat(folder: Path) -> None:
    """The last third of the time holds no more than the second, and every connection is given back."""
    cache = {"memory_bytes": 2 * MEGABYTE}
    async with calling(folder, cache=cache, deadline_ms=60_000, health=QUICK_HEALTH) as caller:
        pid = caller.service.process.pid
        end = time.monotonic() + SECONDS
        working = [asyncio.create_task(traffic(caller, random.Random(n), end)) for n in range(CALLERS)]
        prints: list[Footprint] = []
        while time.monotonic() < end:
            await asyncio.sleep(0.5)
            prints.append(footprint_of(pid))
        calls = sum(await asyncio.gather(*working))
        third = len(prints) // 3
        before, after = prints[third : 2 * third], prints[2 * third :]
        resident = [median(p.resident for p in part) / MEGABYTE for part in (before, after)]
        descriptors = [median(p.descriptors for p in part) for part in (before, after)]
        assert (resident[1] - resident[0]) * MEGABYTE < MOST_GROWTH, resident
        assert descriptors[1] - descriptors[0] <= 4, descriptors
        assert calls > SECONDS
        assert caller.service.ready()
        assert not any("exception" in line for line in caller.service.lines)
        print(  # noqa: T201
            f"soak: {calls} calls in {SECONDS:.0f} s, memory {resident[0]:.0f} MB in the second third and "
            f"{resident[1]:.0f} MB in the last, descriptors {descriptors[0]:.0f} and {descriptors[1]:.0f}"
        )
