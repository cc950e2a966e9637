"""Real services under more load than they can take: the shipped checkpoint, real processes, real connections."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.demo.candidates import read_catalogue
from tests.service.processes import PATIENCE_SECONDS, Service, eventually, serving

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_MS = 1_000.0
ITEMS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where graphs are built once for all tests here."""
    return tmp_path_factory.mktemp("overload")


def body(number: int) -> dict[str, Any]:
    """A request that no cache has seen."""
    products = read_catalogue()
    at = number * ITEMS % (len(products) - ITEMS)
    return {"query": f"cable {number}", "items": products[at : at + ITEMS]}


async def offer(service: Service, rate: float, seconds: float) -> list[httpx.Response]:
    """So many requests a second, whatever becomes of them; all answers."""
    limits = httpx.Limits(max_connections=None)
    headers = {"x-request-deadline-ms": str(DEADLINE_MS)}
    async with httpx.AsyncClient(base_url=service.http, timeout=PATIENCE_SECONDS, limits=limits) as client:

        async def ask(number: int) -> httpx.Response:
            await asyncio.sleep(number / rate)
            return await client.post("/v1/score", json=body(number), headers=headers)

        return await asyncio.gather(*(ask(n) for n in range(int(rate * seconds))))


def test_too_much_is_refused_and_forgotten_at_once(folder: Path) -> None:
    """Every call has an answer, refusals say when to come back, and afterwards the service is as before."""
    patient = {f"{phase}_seconds": PATIENCE_SECONDS for phase in ("head", "body", "write")}  # of a busy test machine
    with serving(folder, threads=1, cache={"enabled": False}, connections=patient) as service:
        answers = asyncio.run(offer(service, rate=80.0, seconds=3.0))
        statuses = Counter(response.status_code for response in answers)
        assert set(statuses) <= {200, 503, 504}, statuses
        assert statuses[503] + statuses[504] >= len(answers) / 4
        for response in answers:
            if response.status_code == 503:
                assert response.json()["code"] == "overloaded"
                assert response.json()["retry_after_ms"] > 0

        def served() -> bool:
            response = httpx.post(f"{service.http}/v1/score", json=body(9_999), timeout=PATIENCE_SECONDS)
            return response.status_code == 200 and response.json()["degraded"] == []

        eventually(served)
        assert service.total("tierwise_admitted_requests") == 0


def test_more_items_than_the_deadline_allows_are_answered_in_part(folder: Path) -> None:
    """The first answer is cut by the engine at the deadline, the next by admission, which knows the rate by then."""
    products = read_catalogue()
    many = [{**product, "id": str(n)} for n, product in enumerate((products * 10)[:256])]
    with serving(folder, threads=1, cache={"enabled": False}) as service:
        for query in ("usb cable", "desk lamp"):
            asked = {"query": query, "items": many, "deadline_ms": 900}
            reply = httpx.post(f"{service.http}/v1/score", json=asked, timeout=PATIENCE_SECONDS)
            assert reply.status_code in {200, 504}  # a very busy machine may not score one in time
            if reply.status_code == 200:
                statuses = Counter(result["status"] for result in reply.json()["results"])
                assert sum(statuses.values()) == len(many)
                assert statuses["ok"] > 0
                assert reply.json()["degraded"] == (["deadline"] if statuses["expired"] else [])
                assert set(statuses) <= {"ok", "expired"}


def test_two_workers_let_in_what_a_quota_allows_together(folder: Path) -> None:
    """Each enforces half of it, so that the sum holds however the connections fall."""
    quota = {"requests_per_second": 4.0, "burst_seconds": 5.0}
    with serving(folder, workers=2, threads=2, deadline_ms=60_000, admission=quota) as service:
        started = time.monotonic()
        one = {"query": "cable", "items": [{"id": "a", "title": "usb cable"}]}
        statuses = Counter(httpx.post(f"{service.http}/v1/score", json=one, timeout=60).status_code for _ in range(80))
        allowed = 4.0 * 5.0 + 4.0 * (time.monotonic() - started)
        assert set(statuses) == {200, 429}
        assert 10 <= statuses[200] <= allowed + 2  # each worker's last one may leave it in debt
        assert service.end() == 0
