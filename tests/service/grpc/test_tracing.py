"""The gRPC door's spans are those of HTTP; a stream's requests each have their own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from service.grpc.requests import explain_message, score_message
from service.schemas import ExplainBody, ScoreBody
from tests.service.grpc.test_stream import parts_of, request
from tests.service.test_tracing import BODY, SAMPLED, TRACE, OnwardEngine, attributes, collector, spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tests.service.grpc.conftest import Doors

    OpenDoors = Callable[..., AbstractAsyncContextManager[Doors]]

SERVICE = "/tierwise.v1.Relevance"
METADATA = tuple(SAMPLED.items())
STAGES = {"parse", "recall", "fetch", "write", "score", "judge"}


@asynccontextmanager
async def traced(open_doors: OpenDoors, engine: OnwardEngine) -> AsyncIterator[tuple[Doors, list[Span]]]:
    """Both doors, and every span once they are shut."""
    found: list[Span] = []
    with collector() as (endpoint, taken):
        async with open_doors(engine, tracing={"endpoint": endpoint, "share": 0.0}) as doors:
            yield doors, found
            assert doors.http.gateway.tracing is not None
            await asyncio.to_thread(doors.http.gateway.tracing.flush)
    found += spans(taken)


def within(found: list[Span], parent: Span) -> dict[str, Span]:
    """The spans directly within one, by name; their times lie in its own, but for how clocks are read."""
    inner = {span.name: span for span in found if span.parent_span_id == parent.span_id}
    for span in inner.values():
        assert parent.start_time_unix_nano - 1e6 <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= parent.end_time_unix_nano + 1e6
    return inner


async def test_a_call_and_its_stages_are_spans(open_doors: OpenDoors) -> None:
    """Score and Explain: one span for the call in its caller's trace, one in it for each stage."""
    async with traced(open_doors, OnwardEngine()) as (doors, found):
        await doors.stub.Score(score_message(ScoreBody.model_validate(BODY)), metadata=METADATA)
        item = {"query": BODY["query"], "item": BODY["items"][0]}
        await doors.stub.Explain(explain_message(ExplainBody.model_validate(item)), metadata=METADATA)
    calls = {span.name: span for span in found if span.name.startswith(SERVICE)}
    assert {span.trace_id.hex() for span in found} == {TRACE}
    assert set(within(found, calls[f"{SERVICE}/Score"])) == STAGES
    assert set(within(found, calls[f"{SERVICE}/Explain"])) == STAGES - {"recall"} | {"explain"}


async def test_each_request_of_a_stream_is_a_span_with_its_stages(open_doors: OpenDoors) -> None:
    """They lie within the call's span, name what they scored, and are what an engine elsewhere is called from."""
    engine = OnwardEngine()
    async with traced(open_doors, engine) as (doors, found):
        parts = await parts_of(doors, [request("a", 3), request("b", 3)], METADATA)
    (call,) = [span for span in found if span.parent_span_id.hex() not in {s.span_id.hex() for s in found}]
    requests = [span for span in found if span.parent_span_id == call.span_id]
    assert (call.name, call.trace_id.hex()) == (f"{SERVICE}/ScoreStream", TRACE)
    assert len(requests) == len(parts) == 2
    for span in requests:
        stages = within(found, span)
        assert set(stages) == STAGES
        assert attributes(stages["score"])["gen_ai.usage.input_tokens"] > 0
        assert attributes(span)["tierwise.items"] == 3
    names = {attributes(span)["tierwise.request.id"]: span for span in requests}
    assert {name.rpartition("/")[0] for name in names} == {attributes(call)["tierwise.request.id"]}
    last = names[engine.onward["x-request-id"]]
    assert engine.onward["traceparent"] == f"00-{TRACE}-{last.span_id.hex()}-01"
