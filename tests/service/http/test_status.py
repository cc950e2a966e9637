"""Health and the admin door."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from service.fetch import Fetcher
from service.gateway import assemble
from service.http.admin import create_admin
from service.http.app import create_app
from service.settings import Settings
from tests.service.conftest import Door, OverlapEngine, judge_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]


def admin_client(door: Door) -> httpx.AsyncClient:
    """A client at the admin door of the same process."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_admin(door.gateway)), base_url="http://admin")


async def test_both_doors_answer_both_probes(door: Door) -> None:
    """Probes may come to either port and get the same report."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_admin(door.gateway)), base_url="http://a"
    ) as admin:
        for client in (door.client, admin):
            assert (await client.get("/livez")).json()["ok"]
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["ok"]) == (200, True)
            assert [c["name"] for c in ready.json()["checks"]] == ["drain", "self-test", "engine"]


async def test_a_failing_check_is_503_and_named(open_door: OpenDoor) -> None:
    """The report says which check fails and why."""
    async with open_door(OverlapEngine(alive=False)) as door:
        response = await door.client.get("/readyz")
        assert response.status_code == 503
        failing = [c for c in response.json()["checks"] if not c["ok"]]
        assert [(c["name"], c["detail"]) for c in failing] == [("engine", "the compute thread died")]
        assert (await door.client.get("/livez")).status_code == 503


async def test_metrics_are_on_the_admin_door_alone(door: Door) -> None:
    """Callers cannot read them; Prometheus can."""
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_admin(door.gateway)), base_url="http://a"
    ) as admin:
        text = (await admin.get("/metrics")).text
    assert "tierwise_ready 1.0" in text
    assert "tierwise_event_loop_lag_seconds" in text
    assert (await door.client.get("/metrics")).status_code == 404


async def test_an_untested_judge_does_not_answer(checkpoint: Path) -> None:
    """A wrong score with status 200 is the worst bug: before the self-test has passed, nothing is scored."""
    settings = Settings(checkpoint=checkpoint)
    gateway = assemble(settings, judge_on(checkpoint, OverlapEngine()), Fetcher(None, 1.0), embedded=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(gateway)), base_url="http://t") as client:
        response = await client.post("/v1/score", json={"query": "a", "items": [{"id": "a", "title": "a"}]})
    assert (response.status_code, response.json()["code"]) == (503, "not-ready")
    assert "starting" in response.json()["detail"]


async def test_an_engine_that_begins_to_answer_wrongly_scores_no_more(open_door: OpenDoor) -> None:
    """From the wrong canary on no call is scored, known answers included, and the probe says why."""
    body = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}
    async with open_door() as door:
        assert (await door.post("/v1/score", body)).status_code == 200
        canaries = door.gateway.pipeline.judge.manifest.canaries
        object.__setattr__(canaries[0], "tier", "2-Mismatch")
        await door.gateway.health.probe()
        response = await door.post("/v1/score", body)
        assert (response.status_code, response.json()["code"]) == (503, "not-ready")
        assert "expected 2-Mismatch" in (await door.client.get("/readyz")).text
        object.__setattr__(canaries[0], "tier", "4-Excellent")
        for _ in range(2):
            await door.gateway.health.probe()
        assert (await door.post("/v1/score", body)).status_code == 200
