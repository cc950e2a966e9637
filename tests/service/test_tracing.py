"""Traces, to a collector that speaks real OTLP, to one that hangs, and to none."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from models.engines.onward import HEADERS
from service.logs import JsonFormatter
from tests.service.conftest import Door, FakeKnowledge, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from models.deadline import Deadline
    from models.engines.port import Scores

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class OnwardEngine(OverlapEngine):
    """Keeps what it would send on to a server elsewhere."""

    onward: dict[str, str]

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """As the fake engine."""
        self.onward = dict(HEADERS.get())
        return await super().score(prefix, suffixes, deadline, scope=scope)


@contextmanager
def collector(answer_after: threading.Event | None = None) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector's address and what it was sent; it answers once the event is set, at once without one."""
    taken: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            if answer_after is not None:
                answer_after.wait()
            assert self.path == "/v1/traces"
            taken.append(ExportTraceServiceRequest.FromString(raw))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the base's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        if answer_after is not None:
            answer_after.set()
        server.shutdown()
        server.server_close()
        thread.join()


def spans(taken: list[ExportTraceServiceRequest]) -> list[Span]:
    """Every span that arrived."""
    return [span for one in taken for r in one.resource_spans for s in r.scope_spans for span in s.spans]


def attributes(span: Span) -> dict[str, Any]:
    """Attributes as plain values."""
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


async def test_a_request_and_its_stages_are_spans(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> None:
    """One span for the request in its caller's trace, one in it for each stage, within its time; the log has the id."""
    engine = OnwardEngine()
    with collector() as (endpoint, taken), caplog.at_level(logging.INFO, "tierwise.access"):
        async with open_door(engine, FakeKnowledge(), tracing={"endpoint": endpoint, "share": 0.0}) as door:
            response = await door.post("/v1/score", BODY, **SAMPLED)
            assert door.gateway.tracing is not None
            await asyncio.to_thread(door.gateway.tracing.flush)
    found = {span.name: span for span in spans(taken)}
    stages = {"parse", "recall", "fetch", "write", "score", "judge"}
    assert set(found) == {*stages, "POST /v1/score"}
    whole = found["POST /v1/score"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, PARENT)
    for name, span in found.items():
        assert span.trace_id == whole.trace_id
        if span is not whole:
            assert span.parent_span_id == whole.span_id, name
            assert whole.start_time_unix_nano - 1e6 <= span.start_time_unix_nano
            assert span.start_time_unix_nano <= span.end_time_unix_nano <= whole.end_time_unix_nano + 1e6
    facts = attributes(whole)
    assert (facts["http.route"], facts["http.response.status_code"], facts["tierwise.items"]) == ("/v1/score", 200, 1)
    scored = attributes(found["score"])
    assert scored["gen_ai.operation.name"] == "score"
    assert scored["gen_ai.response.model"] == response.json()["versions"]["checkpoint"]
    assert scored["gen_ai.usage.input_tokens"] == response.json()["usage"]["total_tokens"]
    assert "tierwise.search_ms" in attributes(found["fetch"])
    assert engine.onward["traceparent"] == f"00-{TRACE}-{whole.span_id.hex()}-01"
    (line,) = [json.loads(JsonFormatter().format(r)) for r in caplog.records if r.name == "tierwise.access"]
    assert line["trace_id"] == response.headers["x-trace-id"] == TRACE


async def test_a_request_without_a_trace_begins_one(open_door: OpenDoor) -> None:
    """The share of such requests is the operator's choice; a failed one is marked."""
    with collector() as (endpoint, taken):
        async with open_door(
            OverlapEngine(failed=frozenset({0})), tracing={"endpoint": endpoint, "share": 1.0}
        ) as door:
            response = await door.post("/v1/score", BODY)
            assert door.gateway.tracing is not None
            await asyncio.to_thread(door.gateway.tracing.flush)
    (whole,) = [span for span in spans(taken) if span.name == "POST /v1/score"]
    assert response.status_code == 503
    assert whole.trace_id.hex() == response.headers["x-trace-id"]
    assert not whole.parent_span_id
    assert whole.status.code == whole.status.STATUS_CODE_ERROR


async def test_no_text_of_a_caller_is_in_a_trace(open_door: OpenDoor) -> None:
    """Traces go to other places than answers do."""
    with collector() as (endpoint, taken):
        async with open_door(tracing={"endpoint": endpoint, "share": 1.0}) as door:
            await door.post("/v1/score", {"query": "secret", "items": [{"id": "secret", "title": "secret"}]})
            await door.post("/v1/score", {"query": "", "items": []})
            assert door.gateway.tracing is not None
            await asyncio.to_thread(door.gateway.tracing.flush)
    assert len({span.trace_id for span in spans(taken)}) == 2
    assert b"secret" not in b"".join(one.SerializeToString() for one in taken)


@pytest.mark.parametrize("trouble", ["down", "hangs"])
async def test_a_collector_in_trouble_costs_nothing(open_door: OpenDoor, trouble: str) -> None:
    """Requests go on, far more than its queue holds, and the end of the process does not wait for it."""
    hang = threading.Event()
    with socket.socket() as nobody, collector(hang) as (hanging, _):
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        endpoint = hanging if trouble == "hangs" else f"http://127.0.0.1:{nobody.getsockname()[1]}"
        async with open_door(tracing={"endpoint": endpoint, "share": 1.0}) as door:
            for _ in range(600):
                assert (await door.post("/v1/score", BODY)).status_code == 200
            closing = time.monotonic()
        assert time.monotonic() - closing < 10
        hang.set()


async def test_tracing_is_off_by_default(door: Door) -> None:
    """Without a collector there is nothing to do; a caller's trace is still in the log and goes on."""
    assert door.gateway.tracing is None
    assert (await door.post("/v1/score", BODY, **SAMPLED)).headers["x-trace-id"] == TRACE
