"""What the gRPC door leaves behind: counted and traced as the HTTP door is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from service.grpc.v1 import relevance_pb2 as pb
from tests.service.test_tracing import SAMPLED, TRACE, attributes, collector, spans

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.service.grpc.conftest import Doors

GOOD = pb.ScoreRequest(query="abcd", items=[pb.Item(id="a", title="abcd")])
PATH = "/tierwise.v1.Relevance/Score"


async def test_calls_are_counted_by_what_http_would_say(doors: Doors) -> None:
    """One label for both doors, so that one alert watches them."""
    await doors.stub.Score(GOOD)
    with pytest.raises(grpc.aio.AioRpcError):
        await doors.stub.Score(pb.ScoreRequest(query="", items=GOOD.items))
    value = doors.http.gateway.metrics.registry.get_sample_value
    labels = {"door": "grpc", "path": PATH, "tenant": "public"}
    assert value("tierwise_requests_total", {**labels, "status": "200"}) == 1
    assert value("tierwise_requests_total", {**labels, "status": "422"}) == 1
    assert value("tierwise_items_total", {"status": "ok", "tenant": "public"}) == 1
    assert value("tierwise_stage_seconds_count", {"stage": "parse"}) == 1


async def test_a_call_is_a_span_of_its_caller_s_trace(
    open_doors: Callable[..., AbstractAsyncContextManager[Doors]],
) -> None:
    """W3C context comes in the metadata; status and method are named as gRPC's conventions do."""
    with collector() as (endpoint, taken):
        async with open_doors(tracing={"endpoint": endpoint, "share": 0.0}) as doors:
            await doors.stub.Score(GOOD, metadata=tuple(SAMPLED.items()))
            await doors.stub.Score(GOOD)  # not sampled
            assert doors.http.gateway.tracing is not None
            await asyncio.to_thread(doors.http.gateway.tracing.flush)
    (whole,) = [span for span in spans(taken) if span.name == PATH]
    assert whole.trace_id.hex() == TRACE
    assert attributes(whole)["rpc.response.status_code"] == "OK"
    assert {span.name for span in spans(taken)} >= {"parse", "recall", "score", "judge"}
