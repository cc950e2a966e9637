"""Bodies seen lately."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from models.engines.port import ItemStatus
from service.errors import InvalidRequestError, MalformedBodyError
from service.parse import parse_body
from service.repeats import Repeats
from service.request import Caller
from service.schemas import JinaRerankBody, ScoreBody
from tests.service.conftest import OverlapEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.service.conftest import Door

CALLER = Caller("one")


def raw_of(query: str = "q", **more: Any) -> bytes:
    """A body of about sixty bytes."""
    return json.dumps({"query": query, "items": [{"id": "a", "title": "abcd"}], **more}).encode()


def read(raw: bytes, _: str) -> ScoreBody:
    """As the HTTP door reads it."""
    return parse_body(ScoreBody, raw)


def test_equal_bytes_are_read_once() -> None:
    """The same body and the same request; other bytes are another one."""
    repeats = Repeats(read)
    body = repeats.read(raw_of(), CALLER)
    again = repeats.read(raw_of(), CALLER)
    assert body is again
    assert body.request() is again.request()
    assert repeats.read(raw_of("r"), CALLER).query == "r"
    assert repeats.read(raw_of(deadline_ms=5.0), CALLER).deadline_ms == 5.0


def test_tenants_do_not_share() -> None:
    """What one has sent makes no other's request quicker."""
    repeats = Repeats(read)
    assert repeats.read(raw_of(), CALLER) is not repeats.read(raw_of(), Caller("other"))


def test_a_refused_body_is_refused_again() -> None:
    """Nothing of it is remembered."""
    repeats = Repeats(read)
    for _ in range(2):
        with pytest.raises(InvalidRequestError):
            repeats.read(raw_of(top_n=0), CALLER)
        with pytest.raises(MalformedBodyError):
            repeats.read(b"{", CALLER)
    assert repeats.bytes == 0


def test_the_bytes_are_bounded_and_the_oldest_go_first() -> None:
    """A body that alone takes much of the room is not remembered."""
    size = len(raw_of())
    repeats = Repeats(read, limit_bytes=12 * size)
    first = repeats.read(raw_of("a"), CALLER)
    for letter in "bcdefghijkl":
        repeats.read(raw_of(letter), CALLER)
    assert repeats.read(raw_of("a"), CALLER) is first
    second = repeats.read(raw_of("m"), CALLER)
    assert repeats.bytes == 12 * size
    assert repeats.read(raw_of("a"), CALLER) is first
    assert repeats.read(raw_of("m"), CALLER) is second
    assert (CALLER.tenant, raw_of("b")) not in repeats._seen
    repeats.read(raw_of("n" * 100), CALLER)
    assert repeats.bytes == 12 * size


def test_a_rerank_request_is_made_once() -> None:
    """The shapes of others too."""
    body = JinaRerankBody(query="q", documents=["a\nb"])
    assert body.request() is body.request()


async def test_a_repeated_request_is_scored_anew(
    open_door: Callable[..., AbstractAsyncContextManager[Door]],
) -> None:
    """Only the reading is remembered: when the engine answers otherwise, so does the service."""
    async with open_door(OverlapEngine(expired=frozenset({1})), cache={"enabled": False}) as door:
        body = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}, {"id": "b", "title": "wxyz"}]}
        statuses = []
        for expired in (frozenset({1}), frozenset({0}), frozenset[int]()):
            door.engine.expired = expired
            results = (await door.post("/v1/score", body)).json()["results"]
            statuses.append({r["id"]: r["status"] for r in results})
    assert statuses == [
        {"a": ItemStatus.OK, "b": ItemStatus.EXPIRED},
        {"a": ItemStatus.EXPIRED, "b": ItemStatus.OK},
        {"a": ItemStatus.OK, "b": ItemStatus.OK},
    ]
