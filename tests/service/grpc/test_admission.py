"""Quotas and overload hold at the gRPC door as they do at the other."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from models.deadline import Deadline
from service.grpc.requests import score_message
from service.grpc.v1 import relevance_pb2 as pb
from service.request import Caller
from service.schemas import ScoreBody
from tests.service.grpc.conftest import details

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from service.admission.admission import Admission
    from tests.service.grpc.conftest import Doors

    OpenDoors = Callable[..., AbstractAsyncContextManager[Doors]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}
TWO: dict[str, Any] = {**BODY, "items": [*BODY["items"], {"id": "b", "title": "wxyz"}]}


def message(body: dict[str, Any] = BODY) -> pb.ScoreRequest:
    """One item."""
    return score_message(ScoreBody.model_validate(body))


@contextmanager
def crowded(admission: Admission) -> Iterator[None]:
    """An engine of a thousand tokens a second that has work for five, taken on with an early deadline."""
    meter = admission._queue.meter
    meter.began(0.0)
    meter.ended(1e9, 1e6, idle=True)
    with admission.admit(Caller("other"), Deadline.after(100.0), 0, [5_000]):
        yield


async def test_both_doors_draw_on_one_quota(open_doors: OpenDoors) -> None:
    """What was used up over HTTP is used up over gRPC, unary and on a stream, with the time to wait."""
    async with open_doors(admission={"requests_per_second": 0.1, "burst_seconds": 10.0}) as doors:
        assert (await doors.http.post("/v1/score", BODY)).status_code == 200
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await doors.stub.Score(message())

        async def one() -> AsyncIterator[pb.ScoreStreamRequest]:
            yield pb.ScoreStreamRequest(id="1", request=message())

        (answer,) = [part async for part in doors.stub.ScoreStream(one())]
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert any(d.type_url.endswith("google.rpc.RetryInfo") for d in details(refused.value).details)
    assert answer.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def test_a_full_queue_refuses_and_bodies_in_flight_are_counted(open_doors: OpenDoors) -> None:
    """UNAVAILABLE before any compute; every byte is given back."""
    async with open_doors() as doors:
        admission = doors.http.gateway.admission
        with crowded(admission):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await doors.stub.Score(message())
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert not doors.http.engine.calls
        await doors.stub.Score(message())
        assert admission.bytes_in_flight == 0


async def test_known_verdicts_come_back_when_there_is_no_room_for_the_others(doors: Doors) -> None:
    """Flagged as left out under pressure and not as too late, unary and on a stream."""

    async def one() -> AsyncIterator[pb.ScoreStreamRequest]:
        yield pb.ScoreStreamRequest(id="1", request=message(TWO))

    await doors.stub.Score(message())
    doors.http.engine.calls.clear()
    with crowded(doors.http.gateway.admission):
        unary = await doors.stub.Score(message(TWO))
        *parts, last = [part async for part in doors.stub.ScoreStream(one())]
    streamed = [result for part in parts for result in part.results.results]
    assert not doors.http.engine.calls
    assert list(unary.degraded) == list(last.done.degraded) == ["cache_only"]
    for results in (unary.results, streamed):
        assert {r.id: r.status for r in results} == {"a": pb.ITEM_STATUS_OK, "b": pb.ITEM_STATUS_EXPIRED}
