"""The outermost layer: ids, headers, the log line, and what happens to a defect."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from service.http.app import create_app
from service.logs import JsonFormatter
from tests.service.conftest import Door, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.types import Message

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The access log as it would be written."""
    records = [r for r in caplog.records if r.name == "tierwise.access"]
    written = [JsonFormatter().format(r) for r in records]
    assert all("\n" not in line for line in written)
    return [json.loads(line) for line in written]


async def test_a_well_formed_request_id_comes_back_everywhere(door: Door) -> None:
    """Header, body and problem carry the caller's id."""
    good = await door.post("/v1/score", BODY, **{"x-request-id": "abc-123"})
    bad = await door.post("/v1/score", {}, **{"x-request-id": "abc-123"})
    assert good.headers["x-request-id"] == good.json()["id"] == "abc-123"
    assert bad.headers["x-request-id"] == "abc-123"
    assert bad.json()["instance"] == "urn:tierwise:request:abc-123"


@pytest.mark.parametrize("offered", ["", "a" * 129, "a b", 'a"b', "a{b}", "a;b"])
async def test_an_ill_formed_request_id_is_replaced(door: Door, offered: str) -> None:
    """What could break a header or a log line does not come back."""
    response = await door.post("/v1/score", BODY, **{"x-request-id": offered})
    assert response.status_code == 200
    assert len(response.headers["x-request-id"]) == 32


async def test_server_timing_has_the_stages(door: Door) -> None:
    """A browser or a proxy can see where the time went."""
    header = (await door.post("/v1/score", BODY)).headers["server-timing"]
    assert [part.partition(";dur=")[0] for part in header.split(", ")] == [
        "parse", "recall", "fetch", "write", "score", "judge", "total",
    ]  # fmt: skip


async def test_one_line_for_each_request_without_its_text(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """The line says what was asked and how it went, never the query or the items."""
    with caplog.at_level(logging.INFO, "tierwise.access"):
        await door.post("/v1/score", {**BODY, "query": "secret"})
        await door.post("/v1/score", {**BODY, "query": ""})
        await door.client.get("/nowhere/line%0Abreak")
    scored, refused, lost = lines(caplog)
    assert (scored["status"], scored["items"], scored["path"], scored["chunk"]) == (200, 1, "/v1/score", None)
    assert scored["timings_ms"]["total"] <= scored["ms"]
    assert (refused["status"], refused["code"]) == (422, "invalid-request")
    assert (lost["status"], lost["path"]) == (404, "/nowhere/line\nbreak")
    assert "secret" not in json.dumps(scored)


async def test_a_defect_is_a_problem_without_details(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets an id, the log gets the traceback."""
    async with open_door(OverlapEngine(raises=ZeroDivisionError("secret"))) as door:
        response = await door.post("/v1/score", BODY, **{"x-request-id": "r9"})
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret" not in response.text
    failure = next(r for r in caplog.records if r.getMessage() == "a defect")
    assert "ZeroDivisionError" in JsonFormatter().format(failure)
    assert json.loads(JsonFormatter().format(failure))["id"] == "r9"


async def test_a_caller_that_leaves_is_not_a_failure(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged as gone; no error is raised or sent."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": [], "query_string": b""}
    with caplog.at_level(logging.INFO, "tierwise.access"):
        await create_app(door.gateway)(scope, receive, send)
    assert sent == []
    assert [line["status"] for line in lines(caplog)] == [499]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/v1/score/", 404, "not-found"),
        ("GET", "/v1/score", 405, "method-not-allowed"),
        ("DELETE", "/v1/models", 405, "method-not-allowed"),
    ],
)
async def test_wrong_paths_and_methods_are_problems_too(
    door: Door, method: str, path: str, status: int, code: str
) -> None:
    """One error format on every path; 405 names the method to use."""
    response = await door.client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert ("allow" in response.headers) is (status == 405)


async def test_metrics_count_by_route_never_by_path(door: Door) -> None:
    """A caller cannot grow the metrics by making up paths."""
    for n in range(3):
        await door.client.get(f"/made-up/{n}")
    await door.post("/v1/score", BODY)
    value = door.gateway.metrics.registry.get_sample_value
    labels = {"door": "http", "tenant": "public"}
    assert value("tierwise_requests_total", {**labels, "path": "unknown", "status": "404"}) == 3
    assert value("tierwise_requests_total", {**labels, "path": "/v1/score", "status": "200"}) == 1
