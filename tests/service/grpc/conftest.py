"""Both doors around one gateway with the fake engine: HTTP in process, gRPC on a real port."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from google.rpc.status_pb2 import Status

from service.grpc.calls import DETAILS_KEY
from service.grpc.door import GrpcDoor
from service.grpc.v1.relevance_pb2_grpc import RelevanceStub
from service.sockets import reserve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.service.conftest import Door


@dataclass
class Doors:
    """A running gateway behind both doors."""

    http: Door
    door: GrpcDoor
    serving: asyncio.Task[None]
    channel: grpc.aio.Channel
    stub: RelevanceStub

    @property
    def target(self) -> str:
        """Host and port of the gRPC door."""
        return self.door.address.removeprefix("grpc://")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; a test that waits long has failed."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 # what is waited for belongs to others and sets no event
            await asyncio.sleep(0.01)


def details(error: grpc.aio.AioRpcError) -> Status:
    """The google.rpc status of an error."""
    (packed,) = [value for key, value in error.trailing_metadata() if key == DETAILS_KEY]
    return Status.FromString(packed)  # type: ignore[arg-type] # the key ends in -bin


@pytest.fixture
def open_doors(
    open_door: Callable[..., AbstractAsyncContextManager[Door]],
) -> Callable[..., AbstractAsyncContextManager[Doors]]:
    """Open both doors; the arguments of `open_door`."""

    @asynccontextmanager
    async def open_(*args: Any, **settings: object) -> AsyncIterator[Doors]:
        async with open_door(*args, **settings) as http:
            with reserve("grpc_port", "127.0.0.1", 0) as port:
                door = GrpcDoor(http.gateway, port)
                serving = asyncio.create_task(door.serve())
                async with grpc.aio.insecure_channel(door.address.removeprefix("grpc://")) as channel:
                    await channel.channel_ready()
                    yield Doors(http, door, serving, channel, RelevanceStub(channel))  # type: ignore[no-untyped-call] # generated
                door.abort()
                await serving

    return open_


@pytest.fixture
async def doors(open_doors: Callable[..., AbstractAsyncContextManager[Doors]]) -> AsyncIterator[Doors]:
    """Both doors with default settings."""
    async with open_doors() as opened:
        yield opened
