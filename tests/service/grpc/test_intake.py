"""What the gRPC door holds of messages that nobody has let in."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.access.keys import key_hash, key_id, new_key
from service.grpc import intake
from service.grpc import open as open_services
from service.grpc.v1 import relevance_pb2 as pb
from tests.service.conftest import OverlapEngine
from tests.service.grpc.conftest import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.service.grpc.conftest import Doors

    OpenDoors = Callable[..., AbstractAsyncContextManager[Doors]]

SCORE = "/tierwise.v1.Relevance/Score"
CHECK = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
MESSAGE = pb.ScoreRequest(query="abcd", items=[pb.Item(id="a", title="abcd")])
ROOM_FOR_ONE: dict[str, Any] = {"admission": {"in_flight_bytes": 5_000}, "limits": {"body_bytes": 5_000}}


def stalled(doors: Doors, path: str) -> Any:
    """A call whose message does not come."""
    return doors.channel.stream_unary(path)()


async def failure_of(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with, soon."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await asyncio.wait_for(call, 10)
    return failure.value


async def test_a_caller_without_a_key_is_refused_before_its_message_is_read(open_doors: OpenDoors) -> None:
    """Whoever is not known cannot make the door hold anything."""
    key = new_key()
    record = {"id": key_id(key), "sha256": key_hash(key), "tenant": "shop", "scopes": ["score"]}
    async with open_doors(access={"keys": json.dumps({"keys": [record]})}) as doors:
        assert (await failure_of(stalled(doors, SCORE))).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_message_that_is_not_read_holds_little(doors: Doors) -> None:
    """The windows of HTTP/2 stay what they are at first: gRPC would open them for megabytes, read or not."""
    reader, writer = await asyncio.open_connection(*doors.target.split(":"))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))  # settings: none
    head = await asyncio.wait_for(reader.readexactly(9), 10)
    settings = await reader.readexactly(int.from_bytes(head[:3], "big"))
    writer.close()
    pairs = {settings[n : n + 2]: settings[n + 2 : n + 6] for n in range(0, len(settings), 6)}
    assert head[3] == 4
    assert int.from_bytes(pairs.get(b"\0\4", b"\xff\xff"), "big") == intake.UNREAD_BYTES


async def test_few_messages_are_read_at_a_time(open_doors: OpenDoors) -> None:
    """As many as fit into the bytes in flight; the next caller waits for room and gets its answer."""
    async with open_doors(**ROOM_FOR_ONE) as doors:
        slow = stalled(doors, SCORE)
        await asyncio.sleep(0.1)
        waiting = asyncio.ensure_future(doors.stub.Score(MESSAGE))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        slow.cancel()
        assert (await asyncio.wait_for(waiting, 10)).results


async def test_few_callers_wait_for_room(open_doors: OpenDoors, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is told to come back: each that waits holds what it has sent so far."""
    monkeypatch.setattr(intake, "MOST_WAITING", 1)
    async with open_doors(**ROOM_FOR_ONE) as doors:
        calls = [stalled(doors, SCORE) for _ in range(2)]
        await asyncio.sleep(0.1)
        assert (await failure_of(doors.stub.Score(MESSAGE))).code() is grpc.StatusCode.UNAVAILABLE
        for call in calls:
            call.cancel()


async def test_few_watch_the_health(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch lasts and needs no key, so one more is turned away; one that ends makes room."""
    monkeypatch.setattr(open_services, "MOST_WATCHES", 1)
    health: Any = health_pb2_grpc.HealthStub(doors.channel)
    first, second = health.Watch(health_pb2.HealthCheckRequest()), health.Watch(health_pb2.HealthCheckRequest())
    await first.read()
    assert await asyncio.wait_for(second.code(), 10) is grpc.StatusCode.UNAVAILABLE
    first.cancel()
    await asyncio.sleep(0.1)
    third = health.Watch(health_pb2.HealthCheckRequest())
    assert (await asyncio.wait_for(third.read(), 10)).status == health_pb2.HealthCheckResponse.SERVING
    third.cancel()


@pytest.mark.parametrize("path", [SCORE, CHECK, REFLECTION])
async def test_a_message_that_does_not_come_ends_its_call(open_doors: OpenDoors, path: str) -> None:
    """Nobody holds room for longer than a body may take."""
    async with open_doors(connections={"body_seconds": 0.2}) as doors:
        failure = await failure_of(stalled(doors, path))
    assert failure.code() is grpc.StatusCode.CANCELLED
    assert "within 0.2 seconds" in (failure.details() or "")


async def test_a_call_without_a_message_is_refused(doors: Doors) -> None:
    """It is no crash."""
    call: Any = doors.channel.stream_unary(SCORE)
    assert (await failure_of(call(iter(())))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_streams_that_may_send_are_bounded_and_those_that_have_sent_are_not(open_doors: OpenDoors) -> None:
    """A stream may send at any time, so it holds the room of a message until its caller has no more."""
    settings = {**ROOM_FOR_ONE, "connections": {"body_seconds": 0.3}, "deadline_ms": 60_000}
    async with open_doors(OverlapEngine(hang=True), **settings) as doors:
        requests = [pb.ScoreRequest(query=f"abcd {n}", items=MESSAGE.items) for n in range(3)]
        streams = [doors.stub.ScoreStream(iter([pb.ScoreStreamRequest(id="1", request=r)])) for r in requests]
        await until(lambda: len(doors.http.engine.calls) == 3)
        held = doors.stub.ScoreStream()
        await held.write(pb.ScoreStreamRequest(id="1", request=MESSAGE))
        await asyncio.sleep(0.1)
        refused = doors.stub.ScoreStream()
        assert await asyncio.wait_for(refused.code(), 10) is grpc.StatusCode.UNAVAILABLE
        assert not held.done()
        for stream in (*streams, held):
            stream.cancel()


async def test_who_fills_the_room_without_a_key_is_not_in_the_way_of_scoring(open_doors: OpenDoors) -> None:
    """Health is asked by few at a time; the one more waits, and scoring goes on."""
    async with open_doors() as doors:
        slow = [stalled(doors, CHECK) for _ in range(open_services.MOST_READ)]
        await asyncio.sleep(0.1)
        health: Any = health_pb2_grpc.HealthStub(doors.channel)
        waiting = asyncio.ensure_future(health.Check(health_pb2.HealthCheckRequest()))
        assert (await asyncio.wait_for(doors.stub.Score(MESSAGE), 10)).results
        assert not waiting.done()
        for call in slow:
            call.cancel()
        assert (await asyncio.wait_for(waiting, 10)).status == health_pb2.HealthCheckResponse.SERVING
