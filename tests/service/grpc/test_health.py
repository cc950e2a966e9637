"""Health, reflection and the end of the gRPC door."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.grpc.relevance import SERVICE
from service.grpc.requests import score_message
from service.schemas import ScoreBody
from tests.service.conftest import OverlapEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.service.grpc.conftest import Doors

    OpenDoors = Callable[..., AbstractAsyncContextManager[Doors]]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
MESSAGE = score_message(ScoreBody.model_validate({"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}))


def health_of(doors: Doors) -> Any:
    """A stub of the health service."""
    return health_pb2_grpc.HealthStub(doors.channel)


async def until_told(status: int, watch: Any) -> None:
    """Read a watch up to a status."""
    async with asyncio.timeout(20):
        async for told in watch:
            if told.status == status:
                return
    pytest.fail(f"the watch ended before it said {status}")


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_health_is_serving_when_ready_and_not_once_announced(doors: Doors, service: str) -> None:
    """Check and Watch agree; when the process is about to end both say so while calls are still answered."""
    stub = health_of(doors)
    asked = health_pb2.HealthCheckRequest(service=service)
    watch = stub.Watch(asked)
    await until_told(SERVING, watch)
    assert (await stub.Check(asked)).status == SERVING
    doors.door.announce()
    await until_told(NOT_SERVING, watch)
    assert (await stub.Check(asked)).status == NOT_SERVING
    assert (await doors.stub.Score(MESSAGE)).results
    watch.cancel()


async def test_health_follows_readiness(open_doors: OpenDoors) -> None:
    """An engine that dies takes the service's health with it."""
    async with open_doors() as doors:
        watch = health_of(doors).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        await until_told(SERVING, watch)
        doors.http.engine.alive = False
        await until_told(NOT_SERVING, watch)
        watch.cancel()


async def test_a_service_that_is_not_here_is_unknown(doors: Doors) -> None:
    """Check refuses it, Watch says so and waits, as the protocol of health wants."""
    stub = health_of(doors)
    asked = health_pb2.HealthCheckRequest(service="no.such.Service")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.Check(asked)
    assert failure.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(asked)
    await until_told(SERVICE_UNKNOWN, watch)
    watch.cancel()


async def test_reflection_tells_how_to_call(doors: Doors) -> None:
    """A client without our files finds the services, and the descriptor of every message of ours."""
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(doors.channel)  # type: ignore[arg-type] # it takes both kinds
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    listed, files = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    names = {service.name for service in listed.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    pool = DescriptorPool()
    for raw in reversed(files.file_descriptor_response.file_descriptor_proto):
        pool.AddSerializedFile(raw)
    assert set(pool.FindServiceByName(SERVICE).methods_by_name) == {"Score", "ScoreStream", "Explain"}


async def test_calls_in_flight_are_answered_before_the_end(open_doors: OpenDoors) -> None:
    """After `end` no new call is taken, the one in flight gets its answer, and then `serve` returns."""
    go_on = asyncio.Event()
    asked = asyncio.Event()

    class Waiting(OverlapEngine):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            if self.armed:
                asked.set()
                await go_on.wait()
            return await super().score(*args, **kwargs)

    async with open_doors(Waiting(), deadline_ms=60_000) as doors:
        call = asyncio.ensure_future(doors.stub.Score(MESSAGE))
        await asyncio.wait_for(asked.wait(), 10)
        doors.door.end()
        await asyncio.sleep(0.2)
        assert not doors.serving.done()
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await doors.stub.Score(MESSAGE, timeout=10)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        go_on.set()
        assert (await call).results
        await asyncio.wait_for(doors.serving, 10)


async def test_an_abort_waits_for_nobody(open_doors: OpenDoors) -> None:
    """A call that hangs does not keep the door open."""
    async with open_doors(OverlapEngine(hang=True), deadline_ms=60_000, drain_seconds=60) as doors:
        call = asyncio.ensure_future(doors.stub.Score(MESSAGE))
        await asyncio.sleep(0.2)
        doors.door.end()
        await asyncio.sleep(0.2)
        doors.door.abort()
        await asyncio.wait_for(doors.serving, 10)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
