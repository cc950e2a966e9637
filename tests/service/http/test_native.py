"""The native routes over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.service.conftest import Door

BODY = {"query": "abcd", "items": [{"id": "no", "title": "wxyz"}, {"id": "yes", "title": "abcd"}]}


async def test_scores_come_back_best_first_with_their_positions(door: Door) -> None:
    """The best item is first whatever its place in the request, and `index` says where it was."""
    response = await door.post("/v1/score", BODY)
    assert response.status_code == 200
    reply = response.json()
    assert [(r["id"], r["index"], r["tier"], r["band"]) for r in reply["results"]] == [
        ("yes", 1, "4-Excellent", "Good"),
        ("no", 0, "1-Irrelevant", "Bad"),
    ]
