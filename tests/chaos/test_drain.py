"""SIGTERM under load: every call that was accepted is answered."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.callers import call_grpc, call_http, call_stream
from tests.chaos.conftest import LONG, Caller, calling, until
from tests.service.processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 10 if LONG else 1
CALLERS = {call_http: 8, call_grpc: 4, call_stream: 2}
FLOWING = {"200", "unary", "streamed"}  # what becomes of calls before SIGTERM
SERVICE = "/tierwise.v1.Relevance"
PAUSE_SECONDS = 1.0
GRACE_SECONDS = 5.0  # what the chart allows beyond pause and drain


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_accepted_call_fails(folder: Path, body: dict[str, Any], workers: int) -> None:
    """Over HTTP, gRPC and streams side by side: what the service says that it answered, its callers have.

    Answers after SIGTERM close their connections, callers go elsewhere, and the process ends within its grace.
    """
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
            answered = caller.service.requests
        assert set(seen) == FLOWING | {"200 and close", "unary ended", "stream ended"}, seen
        del answered["/readyz", 200], answered["/readyz", 503]
        assert answered == {
            ("/v1/score", 200): seen["200"] + seen["200 and close"],
            (f"{SERVICE}/Score", "OK"): seen["unary"],
            (f"{SERVICE}/ScoreStream", "OK"): seen["streamed"],
            (f"{SERVICE}/ScoreStream", "UNAVAILABLE"): CALLERS[call_stream],
        }
        assert seconds < PAUSE_SECONDS + 20 + GRACE_SECONDS
        print(f"drain, {workers} workers: {dict(seen)}, ended {seconds:.1f} s after SIGTERM")  # noqa: T201


async def drain(caller: Caller, body: dict[str, Any]) -> tuple[Counter[str], float]:
    """SIGTERM once calls flow: what became of all calls, and the seconds until the process had ended with 0."""
    seen: Counter[str] = Counter()
    service = caller.service
    async with asyncio.TaskGroup() as callers:
        for call, count in CALLERS.items():
            address = service.http if call is call_http else service.grpc
            for _ in range(count):
                callers.create_task(call(address, body, seen))
        await until(lambda: min(seen[kind] for kind in FLOWING) > 2 * max(CALLERS.values()) or set(seen) > FLOWING)
        assert set(seen) == FLOWING, seen
        service.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        readiness = await asyncio.to_thread(service.readiness)
        assert readiness.status_code == 503
        assert "shutting down" in readiness.text
        assert await asyncio.to_thread(service.process.wait, PATIENCE_SECONDS) == 0
        seconds = time.monotonic() - told
    return seen, seconds
