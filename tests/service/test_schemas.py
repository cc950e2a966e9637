"""Request bodies."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from models.prompt import Item
from service.request import OwnContext
from service.schemas import AttributeValue, CohereRerankBody, ItemBody, JinaRerankBody, ScoreBody, render_attributes


def test_attributes_are_rendered_in_the_order_sent() -> None:
    """What the model reads is `name value, name value`."""
    attributes: dict[str, AttributeValue] = {
        "colour": "black",
        "wireless": True,
        "battery": 30,
        "weight": 0.25,
        "length": 2.0,
        "ports": ["a", "b"],
    }
    assert render_attributes(attributes) == "colour black, wireless yes, battery 30, weight 0.25, length 2, ports a b"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e16, -(10**400), None, {"a": 1}, [1], [["a"]], b"x"])
def test_an_attribute_of_another_kind_is_refused(value: Any) -> None:
    """Nothing is coerced into text."""
    with pytest.raises(ValidationError):
        ItemBody(id="a", title="t", attributes={"x": value})


@pytest.mark.parametrize(
    "change",
    [
        {"query": ""},
        {"query": " \t"},
        {"query": 7},
        {"query": None},
        {"items": []},
        {"items": "x"},
        {"items": [{"id": "a"}]},
        {"items": [{"id": 1, "title": "t"}]},
        {"items": [{"id": "", "title": "t"}]},
        {"items": [{"id": "a", "title": "t", "price": 1}]},
        {"context": "sometimes"},
        {"context": {"text": ""}},
        {"context": {"text": "x", "id": 1}},
        {"deadline_ms": 0},
        {"deadline_ms": -5},
        {"deadline_ms": "50"},
        {"deadline_ms": True},
        {"deadline_ms": float("inf")},
        {"top_n": 0},
        {"model": ""},
        {"top_n": 1.0},
        {"extra": 1},
    ],
)
def test_a_body_outside_the_schema_is_refused(change: dict[str, Any]) -> None:
    """Types are exact and unknown fields are errors."""
    with pytest.raises(ValidationError):
        ScoreBody.model_validate({"query": "q", "items": [{"id": "a", "title": "t"}], **change})


def test_a_full_body_becomes_the_one_request_type() -> None:
    """Every field arrives where the pipeline looks for it."""
    item = {"id": "a", "title": "t", "brand": "b", "category": "c", "attributes": {"n": 1}, "description": "d"}
    body = {"query": "q", "items": [item], "context": {"text": "x"}, "deadline_ms": 5, "top_n": 1, "model": "toys"}
    request = ScoreBody.model_validate(body).request()
    assert request.candidates[0].item == Item("t", brand="b", category="c", attributes="n 1", description="d")
    assert (request.query, request.candidates[0].id, request.context, request.top_n) == ("q", "a", OwnContext("x"), 1)
    assert request.model == "toys"


def test_documents_become_items_by_one_rule() -> None:
    """The first line is the title, the rest the description; documents are named by position."""
    body = {"query": "q", "documents": ["one\ntwo\nthree", {"text": " only "}]}
    for model in (JinaRerankBody, CohereRerankBody):
        request = model.model_validate(body).request()
        assert [c.id for c in request.candidates] == ["0", "1"]
        assert [c.item for c in request.candidates] == [Item("one", description="two\nthree"), Item("only")]
