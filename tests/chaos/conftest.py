"""Chaos tests on the real service: short ones in every test run, long ones with CHAOS=long (`make chaos`)."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.demo.candidates import read_catalogue
from tests.service.processes import PATIENCE_SECONDS, Service, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

LONG = os.environ.get("CHAOS") == "long"

# Readiness that is lost and found within seconds, so that a test can see both.
QUICK_HEALTH = {"probe_seconds": 0.5, "probe_timeout_seconds": 1.0, "retry_seconds": 0.2, "failures": 2}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where graphs are built once for all chaos."""
    return tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="session")
def body() -> dict[str, Any]:
    """A request about real products, with verdicts at both ends."""
    products = read_catalogue()
    chosen = [next(p for p in products if p["category"] == kind) for kind in ("mouse", "inkjet printer")]
    return {"query": "mouse", "items": [*chosen, *products[:6]], "deadline_ms": 60_000}


@dataclass(frozen=True)
class Verdicts:
    """An answer's scores by item id, comparable within what arithmetic may differ by."""

    scores: dict[str, float]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdicts) and self.scores == pytest.approx(other.scores, abs=2e-3)

    __hash__ = None  # type: ignore[assignment] # equality is approximate


@dataclass(frozen=True)
class Answer:
    """What became of one call."""

    status: int
    seconds: float
    verdicts: Verdicts | None
    cached: int


class Caller:
    """Calls one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._client = httpx.AsyncClient(base_url=service.http, timeout=PATIENCE_SECONDS, trust_env=False)

    async def score(self, body: dict[str, Any], **fields: object) -> Answer:
        """One call."""
        began = time.monotonic()
        response = await self._client.post("/v1/score", json={**body, **fields})
        seconds = time.monotonic() - began
        if response.status_code != httpx.codes.OK:
            return Answer(response.status_code, seconds, None, 0)
        reply = response.json()
        assert {result["status"] for result in reply["results"]} == {"ok"}, reply
        verdicts = Verdicts({result["id"]: result["score"] for result in reply["results"]})
        return Answer(200, seconds, verdicts, reply["usage"]["cached_items"])

    async def post(self, body: dict[str, Any]) -> int:
        """One call of any kind; its status."""
        return (await self._client.post("/v1/score", json=body)).status_code

    async def until_ready(self, ready: bool = True) -> float:  # noqa: FBT001, FBT002 # reads as it is called
        """Wait for the service's readiness to be that; the seconds that it took."""
        return await until(lambda: self.service.ready() is ready)

    async def close(self) -> None:
        """Close connections."""
        await self._client.aclose()


async def until(condition: Callable[[], bool]) -> float:
    """Wait for a condition that may block; the seconds that it took."""
    began = time.monotonic()
    while not await asyncio.to_thread(condition):
        assert time.monotonic() - began < PATIENCE_SECONDS, "it never came"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


@asynccontextmanager
async def calling(folder: Path, **settings: object) -> AsyncIterator[Caller]:
    """A service with these settings and a caller of it; the loop stays free while it starts and ends."""
    with ExitStack() as stack:
        service = await asyncio.to_thread(stack.enter_context, serving(folder, **settings))
        caller = Caller(service)
        try:
            yield caller
        finally:
            await caller.close()
            await asyncio.to_thread(stack.close)
