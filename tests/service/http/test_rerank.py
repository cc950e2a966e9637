"""The rerank shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.service.conftest import Door, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "documents": ["wxyz", "abcd", "abxy"]}


async def test_jina(door: Door) -> None:
    """Ranked, cut, scored in [0, 1], documents echoed unless declined."""
    reply = (await door.post("/v1/rerank", {**BODY, "model": "tiny", "top_n": 2})).json()
    assert [(r["index"], r["document"]["text"]) for r in reply["results"]] == [(1, "abcd"), (2, "abxy")]
    assert 1.0 >= reply["results"][0]["relevance_score"] > reply["results"][1]["relevance_score"] >= 0.0
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] > 0
    bare = (await door.post("/v1/rerank", {**BODY, "return_documents": False})).json()
    assert [r["document"] for r in bare["results"]] == [None, None, None]


async def test_cohere(door: Door) -> None:
    """Ranked, with an id and the meta that Cohere's clients read."""
    reply = (await door.post("/v2/rerank", {**BODY, "max_tokens_per_doc": 4096})).json()
    assert [r["index"] for r in reply["results"]] == [1, 2, 0]
    assert reply["meta"]["api_version"] == {"version": "2"}
    assert reply["meta"]["warnings"] == []
    assert reply["id"]


async def test_the_native_route_gives_the_same_scores(door: Door) -> None:
    """Three doors, one pipeline."""
    items = [{"id": str(n), "title": t} for n, t in enumerate(BODY["documents"])]
    native = (await door.post("/v1/score", {"query": "abcd", "items": items})).json()["results"]
    jina = (await door.post("/v1/rerank", BODY)).json()["results"]
    cohere = (await door.post("/v2/rerank", BODY)).json()["results"]
    expected = [(r["index"], r["score"]) for r in native]
    assert [(r["index"], r["relevance_score"]) for r in jina] == expected
    assert [(r["index"], r["relevance_score"]) for r in cohere] == expected


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_another_model_is_404(door: Door, path: str) -> None:
    """Scores of a model that was not asked for are wrong scores."""
    response = await door.post(path, {**BODY, "model": "rerank-v3.5"})
    assert (response.status_code, response.json()["code"]) == (404, "not-found")
    assert "'tiny'" in response.json()["detail"]


async def test_what_cannot_be_kept_is_not_promised(door: Door) -> None:
    """A smaller document budget than the checkpoint's is refused, not ignored."""
    response = await door.post("/v2/rerank", {**BODY, "max_tokens_per_doc": 10})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "#/max_tokens_per_doc")


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("document", ["", " ", "\u200b", 5, None, {"txt": "x"}, {"text": ""}, ["x"]])
async def test_a_wrong_document_is_named(door: Door, path: str, document: object) -> None:
    """The pointer is in the caller's own terms."""
    response = await door.post(path, {**BODY, "documents": ["x", document]})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "#/documents/1")


async def test_what_is_missing_or_cut_is_said(open_door: OpenDoor) -> None:
    """Clients of these shapes have no status per item; the answer as a whole says it."""
    async with open_door(OverlapEngine(expired=frozenset({1})), cache={"enabled": False}) as door:
        body = {"query": "abcd", "documents": ["耳机" + "w" * 99, "abcd", "ab"]}
        jina = (await door.post("/v1/rerank", body)).json()
        cohere = (await door.post("/v2/rerank", body)).json()
    assert jina["degraded"] == ["deadline"]
    assert [r["index"] for r in jina["results"]] == [r["index"] for r in cohere["results"]] == [2, 0]
    assert cohere["meta"]["warnings"] == [
        "degraded: deadline",
        "truncated: documents 0",
        "unrepresentable: documents 0",
    ]
