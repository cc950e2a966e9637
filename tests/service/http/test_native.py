"""The native routes over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from models.errors import EngineBusyError
from tests.service.conftest import Door, FakeKnowledge, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {
    "query": "abcd",
    "items": [{"id": "no", "title": "wxyz"}, {"id": "yes", "title": "abcd", "attributes": {"size": 2, "new": True}}],
}


async def test_scores_come_back_best_first_with_their_positions(door: Door) -> None:
    """The best item is first whatever its place in the request, and `index` says where it was."""
    response = await door.post("/v1/score", BODY)
    assert response.status_code == 200
    reply = response.json()
    assert [(r["id"], r["index"], r["band"]) for r in reply["results"]] == [("yes", 1, "Good"), ("no", 0, "Bad")]


async def test_the_answer_has_the_documented_shape(open_door: OpenDoor) -> None:
    """Every documented member is there, and nothing else."""
    async with open_door(knowledge=FakeKnowledge()) as door:
        reply = (await door.post("/v1/score", BODY)).json()
    assert set(reply) == {
        "id",
        "model",
        "versions",
        "context",
        "results",
        "degraded",
        "timings_ms",
        "usage",
    }
    assert set(reply["versions"]) == {"checkpoint", "prompt", "index", "tiers"}
    assert reply["context"] == {"chunk_id": "card-1", "source": "cards", "score": 0.75}
    assert set(reply["results"][0]) == {
        "id",
        "index",
        "status",
        "tier",
        "label",
        "band",
        "score",
        "margin",
        "probabilities",
        "label_mass",
        "truncated",
        "unrepresentable",
    }
    stages = ["parse", "recall", "fetch", "embed", "search", "write", "score", "judge", "total"]
    assert list(reply["timings_ms"]) == stages


async def test_an_idle_field_may_be_null(door: Door) -> None:
    """Clients that write null for what they do not know are not refused."""
    item = {"id": "a", "title": "t", "brand": None, "category": None, "attributes": None, "description": None}
    body = {"query": "q", "items": [item], "deadline_ms": None, "top_n": None}
    assert (await door.post("/v1/score", body)).status_code == 200


@pytest.mark.parametrize(
    ("change", "pointer", "says"),
    [
        ({"query": ""}, "#/query", "empty"),
        ({"query": "\u200b"}, "#/query", "visible"),
        ({"query": "q" * 1001}, "#/query", "1000 characters"),
        ({"query": 7}, "#/query", "string"),
        ({"items": []}, "#/items", "empty"),
        ({"items": [{"id": str(n), "title": "t"} for n in range(257)]}, "#/items", "at most 256"),
        ({"items": [{"id": "a", "title": "t"}] * 2}, "#/items/1/id", "unique"),
        ({"items": [{"id": "a"}]}, "#/items/0/title", "required"),
        ({"items": [{"id": "a", "title": "t", "price": 1}]}, "#/items/0/price", "not a field"),
        (
            {"items": [{"id": "a", "title": "t", "attributes": {"x": None}}]},
            "#/items/0/attributes/x",
            "list of strings",
        ),
        ({"items": [{"id": "a", "title": "t", "attributes": {"": "x"}}]}, "#/items/0/attributes/", "name"),
        ({"items": [{"id": "a", "title": "t", "attributes": {"x~/y": 1e300}}]}, "#/items/0/attributes/x~0~1y", "1e15"),
        ({"context": "maybe"}, "#/context", '"auto", "none"'),
        ({"context": {"txt": "x"}}, "#/context", '{"text": ...}'),
        ({"deadline_ms": 0}, "#/deadline_ms", "greater than 0"),
        ({"deadline_ms": -1.5}, "#/deadline_ms", "greater than 0"),
        ({"top_n": 0}, "#/top_n", "greater than or equal to 1"),
        ({"qwery": "x"}, "#/qwery", "not a field"),
    ],
)
async def test_a_wrong_field_is_named_with_what_to_change(
    door: Door, change: dict[str, Any], pointer: str, says: str
) -> None:
    """422, one error for the field, and words that help."""
    response = await door.post("/v1/score", {**BODY, **change})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert [e["pointer"] for e in problem["errors"]] == [pointer]
    assert says in problem["errors"][0]["detail"]
    assert problem["code"] == "invalid-request"
    assert problem["detail"].startswith(pointer.removeprefix("#/"))


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "EOF"),
        (b"{", "EOF"),
        (b'{"query": "a", "query": "b"}', 'duplicate key "query"'),
        (b'{"items": [{"id": "a", "id": "b"}]}', 'duplicate key "id"'),
        (b'{"query": "\xff"}', "unicode"),
        (b'{"query": "\\ud800"}', "hex escape"),
        (b'{"deadline_ms": NaN}', "expected value"),
        (b'{"deadline_ms": Infinity}', "expected value"),
        (b'{"top_n": ' + b"9" * 5000 + b"}", "out of range"),
        (b"[" * 5000, "recursion"),
        (b'{"a":' * 5000, "recursion"),
        (b"{} {}", "trailing"),
        (b"\xef\xbb\xbf{}", "expected value"),
        (json.dumps(BODY).encode("utf-16"), "expected value"),
    ],
)
async def test_what_is_not_one_clean_json_document_is_refused(door: Door, raw: bytes, says: str) -> None:
    """400 with the parser's finding; nothing is guessed."""
    response = await door.client.post("/v1/score", content=raw)
    assert (response.status_code, response.json()["code"]) == (400, "malformed-body")
    assert says in response.json()["detail"]


@pytest.mark.parametrize("raw", [b"[]", b"1", b"null", b'"x"'])
async def test_a_document_that_is_no_object_is_refused(door: Door, raw: bytes) -> None:
    """The body as a whole is named."""
    response = await door.client.post("/v1/score", content=raw)
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "#")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_another_media_type_or_encoding_is_refused(door: Door, headers: dict[str, str]) -> None:
    """415 says how to send it."""
    response = await door.post("/v1/score", BODY, **headers)
    assert (response.status_code, response.json()["code"]) == (415, "unsupported-media-type")


async def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(open_door: OpenDoor) -> None:
    """413 whether the length is declared or the body just keeps coming."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 1000

    async with open_door(limits={"body_bytes": 5000}) as door:
        declared = await door.client.post("/v1/score", content=b" " * 5001)
        streamed = await door.client.post("/v1/score", content=endless())
        fits = await door.client.post("/v1/score", content=json.dumps(BODY).encode().ljust(5000))
    assert [r.status_code for r in (declared, streamed, fits)] == [413, 413, 200]
    assert declared.json()["code"] == streamed.json()["code"] == "body-too-large"
    assert sent < 10


async def test_a_partial_answer_is_an_answer(open_door: OpenDoor) -> None:
    """What was scored comes back, and `degraded` says why the rest did not."""
    async with open_door(OverlapEngine(expired=frozenset({0}))) as door:
        response = await door.post("/v1/score", BODY)
    assert response.status_code == 200
    reply = response.json()
    assert reply["degraded"] == ["deadline"]
    assert [(r["id"], r["status"]) for r in reply["results"]] == [("yes", "ok"), ("no", "expired")]


async def test_nothing_in_time_is_504(open_door: OpenDoor) -> None:
    """The deadline of a header counts like that of the body."""
    async with open_door(OverlapEngine(hang=True), engine_grace_ms=0) as door:
        by_body = await door.post("/v1/score", {**BODY, "deadline_ms": 5})
        by_header = await door.post("/v1/score", BODY, **{"x-request-deadline-ms": "5"})
        by_envoy = await door.post("/v1/score", BODY, **{"x-envoy-expected-rq-timeout-ms": "5"})
    for response in (by_body, by_header, by_envoy):
        assert (response.status_code, response.json()["code"]) == (504, "deadline-exceeded")
        assert response.json()["retryable"]


async def test_a_full_engine_is_503_with_a_hint(open_door: OpenDoor) -> None:
    """The caller learns that it may come back, and when."""
    async with open_door(OverlapEngine(raises=EngineBusyError("9000 tokens queued"))) as door:
        response = await door.post("/v1/score", BODY)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert (response.json()["code"], response.json()["retry_after_ms"]) == ("overloaded", 1000)


async def test_explain_over_http(open_door: OpenDoor) -> None:
    """One item, its verdict, the model's text, and whether it parsed."""
    async with open_door(OverlapEngine(rationale=(40, 41))) as door:
        body = {"query": "abcd", "item": {"id": "a", "title": "abcd"}, "context": {"text": "abcd"}}
        response = await door.post("/v1/explain", body)
        wrong = await door.post("/v1/explain", {**body, "item": {"id": "a", "title": " \u200b"}})
    assert response.status_code == 200
    reply = response.json()
    assert (reply["result"]["tier"], reply["parsed"], reply["rationale"], reply["chunk"]) == (
        "4-Excellent",
        False,
        None,
        "abcd",
    )
    assert (wrong.status_code, wrong.json()["errors"][0]["pointer"]) == (422, "#/item/title")


async def test_models_names_tiers_and_budgets(door: Door) -> None:
    """What a client needs to read the scores."""
    (model,) = (await door.client.get("/v1/models")).json()["data"]
    assert (model["id"], model["object"], model["engine"], model["beta"]) == ("tiny", "model", "overlap", 0.5)
    assert [t["name"] for t in model["tiers"]] == ["4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant"]
    assert model["field_budgets"]["title"] == 48
