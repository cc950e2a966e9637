"""Admission in the service: what callers see of it, and what the engine does not."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from models.deadline import Deadline
from service.admission.ladder import Step
from service.http.app import create_app
from service.request import Caller
from tests.service.conftest import Door, FakeKnowledge, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from starlette.types import Message

    from service.admission.admission import Admission

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

OTHER = Caller("other")
BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": str(n), "title": "abcd"} for n in range(4)]}


def body(count: int, first: int = 0) -> dict[str, Any]:
    """A request for so many items, all different."""
    return {"query": "abcd", "items": [{"id": str(n), "title": f"abcd {n}"} for n in range(first, first + count)]}


def measured(admission: Admission, rate: float) -> None:
    """Have it believe in a rate."""
    meter = admission._queue.meter
    meter.began(0.0)
    meter.ended(rate * 1e6, 1e6, idle=True)


@contextmanager
def crowded(admission: Admission, seconds: float) -> Iterator[None]:
    """An engine of a thousand tokens a second that has work for so long, taken on with an early deadline."""
    measured(admission, 1_000.0)
    with admission.admit(OTHER, Deadline.after(100.0), 0, [int(seconds * 1_000)]):
        yield


def press(admission: Admission, share: float, lasting: float = 60.0) -> None:
    """Many find no room, from now on for so many seconds."""
    until = asyncio.get_running_loop().time() + lasting
    for n in range(1_000):
        admission._ladder.record(until, refused=n < share * 1_000)


async def test_a_full_queue_is_told_before_any_compute(door: Door) -> None:
    """503 with a hint when to come back; the engine was not asked."""
    with crowded(door.gateway.admission, seconds=5.0):
        response = await door.post("/v1/score", BODY)
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    assert response.json()["retryable"]
    assert not door.engine.calls
    assert (await door.post("/v1/score", BODY)).status_code == 200


async def test_a_patient_caller_is_served_where_an_impatient_one_is_not(door: Door) -> None:
    """The deadline decides, whichever way it is sent."""
    with crowded(door.gateway.admission, seconds=0.3):
        assert (await door.post("/v1/score", BODY, **{"x-request-deadline-ms": "200"})).status_code == 503
        assert (await door.post("/v1/score", {**BODY, "deadline_ms": 200})).status_code == 503
        assert (await door.post("/v1/score", BODY)).status_code == 200


async def test_a_caller_over_its_quota_is_told_so(open_door: OpenDoor) -> None:
    """429, not 503, however idle the service is; what the cache answered cost no tokens."""
    async with open_door(admission={"tokens_per_second": 10.0, "burst_seconds": 1.0}) as door:
        assert (await door.post("/v1/score", BODY)).status_code == 200
        response = await door.post("/v1/score", BODY)
    assert (response.status_code, response.json()["code"]) == (429, "quota")
    assert int(response.headers["retry-after"]) >= 1


async def test_who_is_turned_away_at_the_door_has_not_been_read(door: Door) -> None:
    """Under pressure a refusal costs no parse: the body is left where it is."""
    admission = door.gateway.admission
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    now = asyncio.get_running_loop().time()
    for _ in range(10_000):
        admission._throttle.record(("public", "default"), now, let_in=False)
    admission._throttle._coin = lambda: 0.0
    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": [], "query_string": b""}
    with crowded(admission, seconds=5.0):
        await create_app(door.gateway)(scope, receive, send)
    assert sent[0]["status"] == 503
    assert admission.counts.throttled == 1


async def test_a_list_too_long_for_its_deadline_is_answered_as_far_as_it_fits(door: Door) -> None:
    """The first items have verdicts, the others are expired, and the answer says why."""
    measured(door.gateway.admission, 1_000.0)
    reply = (await door.post("/v1/score", {**body(200), "deadline_ms": 800})).json()
    scored = [r["index"] for r in reply["results"] if r["status"] == "ok"]
    assert 0 < len(scored) < 200
    assert sorted(scored) == list(range(len(scored)))
    assert len(reply["results"]) == 200
    assert reply["degraded"] == ["deadline"]


async def test_the_first_step_skips_retrieval(open_door: OpenDoor) -> None:
    """No search, no chunk, a flag; and without pressure the same request is judged with its chunk, not recalled."""
    searched = 0

    def count() -> None:
        nonlocal searched
        searched += 1

    async with open_door(knowledge=FakeKnowledge(wait=count)) as door:
        press(door.gateway.admission, 0.1, lasting=0.0)
        hurried = (await door.post("/v1/score", body(4))).json()
        assert (hurried["degraded"], hurried["context"], searched) == (["no_retrieval"], None, 0)
        chosen = (await door.post("/v1/score", {**BODY, "context": {"text": "own"}})).json()
        assert (chosen["degraded"], chosen["context"]["source"]) == ([], "caller")
        await asyncio.sleep(1.0)
        calm = (await door.post("/v1/score", body(4))).json()
        assert (calm["degraded"], calm["context"]["chunk_id"], searched) == ([], "card-1", 1)
        assert calm["usage"]["cached_items"] == 0


async def test_the_second_step_answers_what_is_known(door: Door) -> None:
    """Where some items are cached, those come back and the others are left; a request without any is scored."""
    await door.post("/v1/score", body(2))
    door.engine.calls.clear()
    press(door.gateway.admission, 0.4)
    reply = (await door.post("/v1/score", body(4))).json()
    assert not door.engine.calls
    assert reply["degraded"] == ["cache_only"]
    assert [(r["index"], r["status"]) for r in reply["results"]] == [
        (0, "ok"), (1, "ok"), (2, "expired"), (3, "expired"),
    ]  # fmt: skip
    assert reply["usage"]["cached_items"] == 2
    assert (await door.post("/v1/score", body(2, first=10))).json()["degraded"] == []


async def test_known_verdicts_come_back_when_there_is_no_room_for_the_others(door: Door) -> None:
    """Refused before any compute, flagged as left out under pressure and not as too late; alone they would be a 503."""
    await door.post("/v1/score", body(2))
    door.engine.calls.clear()
    with crowded(door.gateway.admission, seconds=5.0):
        reply = (await door.post("/v1/score", body(4))).json()
        assert (await door.post("/v1/score", body(2, first=2))).status_code == 503
    assert not door.engine.calls
    assert reply["degraded"] == ["cache_only"]
    assert [(r["index"], r["status"]) for r in reply["results"]] == [
        (0, "ok"), (1, "ok"), (2, "expired"), (3, "expired"),
    ]  # fmt: skip


async def test_what_is_left_out_and_what_is_late_are_two_flags(open_door: OpenDoor) -> None:
    """The first items are asked for, and one of them is not reached."""
    async with open_door(OverlapEngine(expired=frozenset({1})), admission={"brown_out": "items"}) as door:
        press(door.gateway.admission, 0.9)
        reply = (await door.post("/v1/score", body(4))).json()
    assert reply["degraded"] == ["deadline", "first_items"]


async def test_the_third_step_scores_the_first_items(open_door: OpenDoor) -> None:
    """Only where the operator allows it; half of them by default."""
    async with open_door(admission={"brown_out": "items"}) as door:
        press(door.gateway.admission, 0.9)
        reply = (await door.post("/v1/score", body(4))).json()
    assert reply["degraded"] == ["first_items"]
    assert sorted(r["index"] for r in reply["results"] if r["status"] == "ok") == [0, 1]
    async with open_door() as door:
        press(door.gateway.admission, 0.9)
        assert door.gateway.admission.step_for(Caller()) is Step.CACHE_ONLY
        assert (await door.post("/v1/score", body(4))).json()["degraded"] == []


@pytest.mark.parametrize("engine", [OverlapEngine(raises=ZeroDivisionError()), OverlapEngine(hang=True)])
async def test_room_is_given_back_whatever_happens(open_door: OpenDoor, engine: OverlapEngine) -> None:
    """A defect and a hang leave nothing in the books."""
    async with open_door(engine, deadline_ms=50.0, engine_grace_ms=0.0) as door:
        admission = door.gateway.admission
        assert (await door.post("/v1/score", BODY)).status_code in {500, 504}
        assert (admission.queued_tokens, admission.bytes_in_flight) == (0.0, 0)


async def test_an_explanation_is_refused_before_its_item_is_scored(door: Door) -> None:
    """Its decoding is counted from the start."""
    item = {"query": "abcd", "item": {"id": "a", "title": "abcd"}}
    measured(door.gateway.admission, 100.0)
    with ExitStack() as room:
        room.enter_context(door.gateway.admission.admit(OTHER, Deadline.after(100.0), 0, [1]))
        assert (await door.post("/v1/explain", item)).status_code == 503
    assert not door.engine.calls
    measured(door.gateway.admission, 1e6)
    assert (await door.post("/v1/explain", item)).status_code == 200
