"""Messages become requests by the rules of the HTTP door."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequestError, MalformedBodyError
from service.grpc.requests import explain_message, explain_request, parse, score_message, score_request
from service.grpc.v1 import relevance_pb2 as pb
from service.limits import check_limits
from service.parse import validated
from service.request import OwnContext, ScoreRequest
from service.schemas import ExplainBody, ItemBody, OwnContextBody, ScoreBody
from service.settings import Limits

LIMITS = Limits(items=4, query_characters=20, context_characters=30, id_characters=8)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=24)
numbers = st.floats(-2e15, 2e15) | st.integers(-(2 * 10**15), 2 * 10**15)
values = texts | st.booleans() | numbers | st.lists(texts, max_size=3)
items = st.fixed_dictionaries(
    {"id": texts, "title": texts},
    optional={
        "category": texts,
        "brand": texts,
        "description": texts,
        "attributes": st.dictionaries(texts, values, max_size=3),
    },
)
bodies = st.fixed_dictionaries(
    {"query": texts, "items": st.lists(items, max_size=5)},
    optional={
        "context": st.sampled_from(["auto", "none"]) | st.fixed_dictionaries({"text": texts}),
        "deadline_ms": st.floats(-1, 4e6),
        "top_n": st.integers(-1, 5),
        "model": texts.filter(bool),  # an empty one is no field to protobuf
    },
)


def message_of(body: dict[str, Any]) -> pb.ScoreRequest:
    """The message of a body that need not be valid."""
    made = [ItemBody.model_construct(**{**_NO_FIELDS, **item}) for item in body["items"]]
    context = body.get("context", "auto")
    if isinstance(context, dict):
        context = OwnContextBody.model_construct(**context)
    rest = {"deadline_ms": None, "top_n": None, "model": None, **body, "items": made, "context": context}
    return score_message(ScoreBody.model_construct(**rest))


_NO_FIELDS = dict.fromkeys(("category", "brand", "attributes", "description"))


def outcome(make: Any) -> ScoreRequest | tuple[str, tuple[Any, ...]]:
    """The request, or what is wrong with it."""
    try:
        request: ScoreRequest = make()
        check_limits(request, LIMITS)
    except InvalidRequestError as error:
        return error.detail, error.errors
    return request


@given(bodies)
def test_both_doors_make_the_same_of_the_same(body: dict[str, Any]) -> None:
    """Equal content gives an equal request, or is refused for the same fields in the same words."""
    over_http = outcome(lambda: validated(ScoreBody, body).request())
    assert outcome(lambda: score_request(message_of(body))) == over_http


@given(bodies)
def test_a_message_survives_the_wire(body: dict[str, Any]) -> None:
    """Serialised and parsed again it asks for the same."""
    message = message_of(body)
    assert outcome(lambda: score_request(parse(pb.ScoreRequest, message.SerializeToString()))) == outcome(
        lambda: score_request(message)
    )


def test_an_explanation_is_a_request_for_one_item() -> None:
    """The item, the context, the query and the judge arrive."""
    item = ItemBody(id="a", title="t", attributes={"size": 2, "new": True, "ports": ["HDMI", "USB"]})
    asked = explain_request(
        explain_message(
            ExplainBody(query="q", item=item, context=OwnContextBody(text="known"), deadline_ms=5, model="toys")
        )
    )
    assert asked == ScoreRequest("q", (item.candidate(),), OwnContext("known"), model="toys")


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        (pb.ScoreRequest(query="q", context=pb.Context(retrieval=7)), "#/context"),  # type: ignore[arg-type] # an enum is open
        (pb.ScoreRequest(query="q", context=pb.Context(retrieval=pb.RETRIEVAL_UNSPECIFIED)), "#/context"),
        (pb.ScoreRequest(query="q", context=pb.Context()), "#/context"),
        (
            pb.ScoreRequest(query="q", items=[pb.Item(id="a", title="t", attributes=[pb.Attribute(name="n")])]),
            "#/items/0/attributes/0/value",
        ),
        (
            pb.ScoreRequest(
                query="q", items=[pb.Item(id="a", title="t", attributes=[pb.Attribute(name="n", text="x")] * 2)]
            ),
            "#/items/0/attributes/1/name",
        ),
    ],
)
def test_a_choice_that_is_not_known_here_is_refused(message: pb.ScoreRequest, pointer: str) -> None:
    """A newer caller's choice is not taken for a default: the answer would be to another question."""
    with pytest.raises(InvalidRequestError) as failure:
        score_request(message)
    assert [e.pointer for e in failure.value.errors] == [pointer]


def test_an_explanation_needs_its_item() -> None:
    """A message without one names it."""
    with pytest.raises(InvalidRequestError) as failure:
        explain_request(pb.ExplainRequest(query="q"))
    assert failure.value.errors[0].pointer == "#/item"


@pytest.mark.parametrize("raw", [b"\x0a\x01\xff", b"\x0a\x05q", b"{}"])
def test_bytes_that_are_no_message_are_malformed(raw: bytes) -> None:
    """A text that is not UTF-8, a cut message and JSON are refused."""
    with pytest.raises(MalformedBodyError, match=r"tierwise\.v1\.ScoreRequest"):
        parse(pb.ScoreRequest, raw)
