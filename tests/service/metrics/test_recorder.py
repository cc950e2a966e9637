"""What is counted while requests run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from models.errors import EngineBusyError
from service.metrics.catalogue import edges
from service.metrics.recorder import MOST_TENANTS, Metrics
from tests.service.conftest import Door, FakeKnowledge, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}, {"id": "b", "title": "wxyz"}]}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def test_a_scored_request_leaves_its_mark(open_door: OpenDoor) -> None:
    """Items, tiers, stages, tokens, chunk and deadline of one request are counted once."""
    async with open_door(knowledge=FakeKnowledge(), deadline_ms=60_000) as door:
        reply = (await door.post("/v1/score", BODY)).json()
        metrics, checkpoint = door.gateway.metrics, reply["versions"]["checkpoint"]
    assert value(metrics, "tierwise_items_total", status="ok", tenant="public") == 2
    for tier in {result["tier"] for result in reply["results"]}:
        assert value(metrics, "tierwise_item_tiers_total", checkpoint=checkpoint, tier=tier)
    for stage in ("parse", "fetch", "write", "score", "judge", "total"):
        assert value(metrics, "tierwise_stage_seconds_count", stage=stage) == 1
    tokens = value(metrics, "tierwise_prompt_tokens_total", source="computed", tenant="public")
    assert tokens == reply["usage"]["prompt_tokens"]
    assert value(metrics, "tierwise_chunks_total", outcome="used") == 1
    assert value(metrics, "tierwise_deadlines_total", outcome="met", tenant="public") == 1
    assert value(metrics, "tierwise_deadline_used_ratio_count") == 1
    margins = sum(r["margin"] for r in reply["results"])
    assert value(metrics, "tierwise_item_margin_sum", checkpoint=checkpoint) == pytest.approx(margins)
    assert value(metrics, "tierwise_item_margin_count", checkpoint=checkpoint) == 2


async def test_items_that_top_n_hides_are_counted_too(door: Door) -> None:
    """The mix of tiers is that of all judged items, not of the best ones that a caller wanted back."""
    await door.post("/v1/score", {**BODY, "top_n": 1})
    assert value(door.gateway.metrics, "tierwise_items_total", status="ok", tenant="public") == 2


async def test_an_answer_in_part_is_told_from_a_whole_one(open_door: OpenDoor) -> None:
    """Items that expired make the deadline a partial one, and their status is counted."""
    async with open_door(OverlapEngine(expired=frozenset({1}))) as door:
        await door.post("/v1/score", BODY)
        metrics = door.gateway.metrics
    assert value(metrics, "tierwise_items_total", status="expired", tenant="public") == 1
    assert value(metrics, "tierwise_deadlines_total", outcome="partial", tenant="public") == 1
    assert value(metrics, "tierwise_degraded_total", flag="deadline") == 1


async def test_an_answer_that_leaves_items_out_is_one_in_part(open_door: OpenDoor) -> None:
    """Whatever the reason: here no room for what the cache has not."""
    async with open_door(deadline_ms=60_000) as door:
        await door.post("/v1/score", {**BODY, "items": BODY["items"][:1]})
        door.engine.raises = EngineBusyError("full")
        await door.post("/v1/score", BODY)
        metrics = door.gateway.metrics
    assert value(metrics, "tierwise_deadlines_total", outcome="partial", tenant="public") == 1
    assert value(metrics, "tierwise_degraded_total", flag="cache_only") == 1
    assert value(metrics, "tierwise_degraded_total", flag="deadline") is None


async def test_chunks_are_told_by_their_origin(open_door: OpenDoor) -> None:
    """A caller's own text, none and a failing index are three different things."""
    async with open_door(knowledge=FakeKnowledge(raises=OSError())) as door:
        await door.post("/v1/score", BODY)
        await door.post("/v1/score", {**BODY, "context": "none"})
        await door.post("/v1/score", {**BODY, "context": {"text": "abc"}})
        metrics = door.gateway.metrics
    for outcome in ("failed", "none", "caller"):
        assert value(metrics, "tierwise_chunks_total", outcome=outcome) == 1


async def test_missed_deadlines_and_refusals_are_outcomes(door: Door) -> None:
    """504 and 503 of scoring requests are counted; probes are not requests."""
    metrics = door.gateway.metrics
    metrics.answered("/v1/score", 504, 0.1, tenant="a")
    metrics.answered("/v1/score", 503, 0.1, tenant="a")
    metrics.answered("/readyz", 503, 0.1)
    assert value(metrics, "tierwise_deadlines_total", outcome="missed", tenant="a") == 1
    assert value(metrics, "tierwise_deadlines_total", outcome="refused", tenant="a") == 1
    labels = {"door": "http", "status": "503", "tenant": ""}
    assert value(metrics, "tierwise_requests_total", path="/readyz", **labels) is None


def test_tenants_share_a_label_when_there_are_many() -> None:
    """However many tenants there are, the series stay few."""
    metrics = Metrics()
    for n in range(10 * MOST_TENANTS):
        metrics.answered("/v1/score", 200, 0.1, tenant=f"t{n}")
    labels = {"door": "http", "path": "/v1/score", "status": "200"}
    assert value(metrics, "tierwise_requests_total", tenant="other", **labels) == 9 * MOST_TENANTS
    assert value(metrics, "tierwise_requests_total", tenant="t0", **labels) == 1


def test_buckets_are_fine_around_the_budget() -> None:
    """Whether answers are in time can be read off a bucket's edge, whatever the budget is."""
    assert {0.096, 0.12, 0.132} <= set(edges(0.12))
    assert list(edges(1.0)) == sorted(set(edges(1.0)))
