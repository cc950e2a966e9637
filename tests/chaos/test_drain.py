"""SIGTERM under load: every call that was accepted is answered."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.chaos.conftest import LONG, Caller, calling, until
from tests.service.processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 10 if LONG else 1
CALLERS = 12
PAUSE_SECONDS = 1.0
GRACE_SECONDS = 5.0  # what the chart allows beyond pause and drain


async def call_until_refused(address: str, body: dict[str, Any], seen: Counter[str]) -> None:
    """One caller on kept connections. A connection that is refused was not accepted; whatever else fails was."""
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        while True:
            try:
                response = await client.post("/v1/score", json=body)
            except httpx.ConnectError:
                return
            except httpx.HTTPError as error:
                seen[type(error).__name__] += 1
                return
            if response.status_code != httpx.codes.OK:
                seen[response.json()["code"]] += 1
                continue
            closes = response.headers.get("connection") == "close"
            seen["200 and close" if closes else "200"] += 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_accepted_call_fails(folder: Path, body: dict[str, Any], workers: int) -> None:
    """Answers after SIGTERM close their connections, callers go elsewhere, and the process ends within its grace."""
    body = {**body, "items": body["items"][:4], "deadline_ms": 30_000}
    chosen: dict[str, object] = {
        "workers": workers,
        "deadline_ms": 60_000,
        "drain_pause_seconds": PAUSE_SECONDS,
        "cache": {"enabled": False},
        "admission": {"enabled": False},  # a call that is refused is none that fails, but says nothing here
    }
    for _ in range(ROUNDS):
        async with calling(folder, drain_seconds=20, **chosen) as caller:
            seen, seconds = await drain(caller, body)
        assert set(seen) == {"200", "200 and close"}, seen
        assert seconds < PAUSE_SECONDS + 20 + GRACE_SECONDS
        print(f"drain, {workers} workers: {dict(seen)}, ended {seconds:.1f} s after SIGTERM")  # noqa: T201


async def drain(caller: Caller, body: dict[str, Any]) -> tuple[Counter[str], float]:
    """SIGTERM once calls flow: what became of all calls, and the seconds until the process had ended with 0."""
    seen: Counter[str] = Counter()
    callers = [asyncio.create_task(call_until_refused(caller.service.http, body, seen)) for _ in range(CALLERS)]
    await until(lambda: seen["200"] > 2 * CALLERS)
    assert not seen["200 and close"]
    process = caller.service.process
    process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    readiness = await asyncio.to_thread(caller.service.readiness)
    assert readiness.status_code == 503
    assert "shutting down" in readiness.text
    assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0
    seconds = time.monotonic() - told
    await asyncio.gather(*callers)
    return seen, seconds
