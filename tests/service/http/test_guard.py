"""The door with keys."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from service.access.keys import key_hash, key_id, new_key
from service.http.app import create_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.types import Message

    from tests.service.conftest import Door

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}
EXPLAIN: dict[str, Any] = {"query": "abcd", "item": {"id": "a", "title": "abcd"}}
SCORER, EXPLAINER = new_key(), new_key()


def keys() -> str:
    """Two tenants with one scope each."""
    grants = ((SCORER, "shop", "score"), (EXPLAINER, "lab", "explain"))
    return json.dumps(
        {"keys": [{"id": key_id(k), "sha256": key_hash(k), "tenant": t, "scopes": [s]} for k, t, s in grants]}
    )


@pytest.fixture
async def closed(open_door: OpenDoor) -> AsyncIterator[Door]:
    """A door with keys."""
    async with open_door(access={"keys": keys()}) as door:
        yield door


@pytest.mark.parametrize("path", ["/v1/score", "/v1/explain", "/v1/rerank", "/v2/rerank", "/v1/models", "/nowhere"])
async def test_every_path_asks_for_a_key(closed: Door, path: str) -> None:
    """Unknown paths too: a stranger learns nothing about what is here."""
    for headers in ({}, {"authorization": f"Bearer {new_key()}"}):
        response = await closed.post(path, BODY, **headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert response.headers["content-type"] == "application/problem+json"
    assert closed.engine.calls == []


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json", "/docs"])
async def test_probes_and_documents_are_open(closed: Door, path: str) -> None:
    """A probe holds no secret, and a reader of the documents needs none yet."""
    assert (await closed.client.get(path)).status_code == 200


async def test_each_key_does_what_its_scopes_say(closed: Door) -> None:
    """No scope includes another."""
    for key, path, body, status in (
        (SCORER, "/v1/score", BODY, 200),
        (SCORER, "/v1/explain", EXPLAIN, 403),
        (EXPLAINER, "/v1/explain", EXPLAIN, 200),
        (EXPLAINER, "/v1/score", BODY, 403),
    ):
        response = await closed.post(path, body, **{"x-api-key": key})
        assert response.status_code == status, (path, response.text)


async def test_a_stranger_is_refused_before_the_body_is_read(closed: Door) -> None:
    """What cannot be paid for is not received."""
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was asked for")

    async def send(message: Message) -> None:
        sent.append(message)

    for headers in ([], [(b"x-api-key", EXPLAINER.encode())]):
        scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": headers, "query_string": b""}
        await create_app(closed.gateway)(scope, receive, send)
    assert [message["status"] for message in sent if "status" in message] == [401, 403]


async def test_the_log_names_the_tenant_and_the_key_by_its_id(closed: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Every line of a known caller says whose it was, also when it was refused; a stranger's has no name."""
    with caplog.at_level(logging.INFO, "tierwise.access"):
        await closed.post("/v1/score", BODY, **{"x-api-key": SCORER})
        await closed.post("/v1/explain", EXPLAIN, **{"x-api-key": SCORER})
        await closed.post("/v1/score", BODY)
    fields = [record.__dict__["fields"] for record in caplog.records]
    known = ("shop", f"key:{key_id(SCORER)}")
    assert [(line.get("tenant"), line.get("credential")) for line in fields] == [known, known, (None, None)]


async def test_the_document_says_how_to_send_a_key(closed: Door) -> None:
    """A generated client asks for one, and probes go without."""
    document = (await closed.client.get("/openapi.json")).json()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    assert document["paths"]["/livez"]["get"]["security"] == []
    for path in ("/v1/score", "/v1/explain", "/v1/rerank", "/v2/rerank"):
        assert {"401", "403"} < document["paths"][path]["post"]["responses"].keys()
