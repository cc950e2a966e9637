"""Replies travel as messages without loss."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.engines.port import ItemStatus
from service.grpc.replies import (
    explain_reply,
    explain_response,
    item_results,
    response_bytes,
    score_reply,
)
from service.grpc.v1 import relevance_pb2 as pb
from service.reply import (
    AttributeJudgement,
    ContextReference,
    Degraded,
    ExplainReply,
    ItemResult,
    RationaleFields,
    ScoreReply,
    Usage,
    Versions,
)
from service.request import ScoreRequest

TIERS = ("best", "worst")
RESULT = ItemResult("a", 3, ItemStatus.OK, "best", "b", "Good", 0.75, 0.25, {"best": 0.75, "worst": 0.25}, 0.5, (), ())
LATE = ItemResult("b", 0, ItemStatus.EXPIRED, None, None, None, None, None, None, None, ("title",), ("query",))
SCORE = ScoreReply(
    "id",
    "m",
    Versions("c", "p", "i", "t"),
    None,
    (RESULT, LATE),
    (Degraded.DEADLINE,),
    {"total": 1.5},
    Usage(3, 2, 3, 1),
)
EXPLAIN = ExplainReply(
    id="id",
    model="m",
    versions=Versions("c", "p", None, "t"),
    context=ContextReference(None, "caller", None),
    chunk="",
    result=RESULT,
    parsed=True,
    rationale=RationaleFields("exact", (AttributeJudgement("colour", "match"),), "adopt", "same"),
    text="same",
    degraded=(),
    timings_ms={},
    usage=Usage(3, 0, 9, 0),
)


@pytest.mark.parametrize(
    "reply",
    [SCORE, replace(SCORE, context=ContextReference("card", "cards", 0.0)), replace(SCORE, results=(), degraded=())],
)
def test_a_reply_comes_back_equal(reply: ScoreReply) -> None:
    """Nothing is lost or rounded, and null stays apart from zero and from empty."""
    raw = response_bytes(ScoreRequest("q", ()), reply, TIERS)
    assert score_reply(pb.ScoreResponse.FromString(raw)) == reply


def test_a_request_that_comes_again_gets_its_own_answer() -> None:
    """What is remembered of the last answer shows in none that differs."""
    asked = ScoreRequest("q", ())
    for reply in (
        SCORE,
        SCORE,
        replace(SCORE, results=(LATE,)),
        replace(SCORE, id="other"),
        replace(SCORE, results=()),
    ):
        assert score_reply(pb.ScoreResponse.FromString(response_bytes(asked, reply, TIERS))) == reply


@pytest.mark.parametrize(
    "reply", [EXPLAIN, replace(EXPLAIN, parsed=False, rationale=None, chunk=None, context=None, result=LATE)]
)
def test_an_explanation_comes_back_equal(reply: ExplainReply) -> None:
    """So does an explanation, parsed or not."""
    raw = explain_response(reply, TIERS).SerializeToString()
    assert explain_reply(pb.ExplainResponse.FromString(raw)) == reply


@pytest.mark.parametrize("status", ItemStatus)
def test_every_status_has_its_number(status: ItemStatus) -> None:
    """The protocol knows every status that an item can have."""
    reply = replace(SCORE, results=(replace(LATE, status=status),))
    (result,) = item_results(reply.results)
    assert pb.ItemStatus.Name(result.status) == f"ITEM_STATUS_{status.name}"
