"""A caller's trace, from its header to the log and to the engine."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from models.engines.onward import HEADERS
from tests.service.conftest import Door, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    import pytest

    from models.deadline import Deadline
    from models.engines.port import Scores

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}
ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = {"traceparent": f"00-{ID}-00f067aa0ba902b7-01", "tracestate": "a=1"}


class Listening(OverlapEngine):
    """Keeps what it is handed."""

    heard: Mapping[str, str] = {}

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """As the fake engine."""
        self.heard = HEADERS.get()
        return await super().score(prefix, suffixes, deadline, scope=scope)


async def test_a_trace_reaches_the_engine_the_log_and_the_caller(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    """The same id everywhere; a call without a trace gets none, and not its predecessor's."""
    engine = Listening()
    async with open_door(engine, cache={"enabled": False}) as door:
        with caplog.at_level(logging.INFO, "tierwise.access"):
            traced = await door.post("/v1/score", BODY, **TRACE, **{"x-request-id": "r1"})
            assert engine.heard == {"x-request-id": "r1", **TRACE}
            plain = await door.post("/v1/score", BODY, **{"x-request-id": "r2"})
            assert engine.heard == {"x-request-id": "r2"}
            await door.post("/v1/score", BODY, traceparent="00-no-trace-01")
    assert traced.headers["x-trace-id"] == ID
    assert "x-trace-id" not in plain.headers
    logged = [record.__dict__["fields"] for record in caplog.records]
    assert [line.get("trace_id") for line in logged] == [ID, None, None]
