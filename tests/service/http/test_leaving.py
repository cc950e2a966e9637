"""A caller that leaves: its work is cancelled, nobody else's is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from starlette.requests import ClientDisconnect

from service.http.app import create_app
from service.http.leaving import while_connected
from tests.service.conftest import Door, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from starlette.types import Message

    from models.deadline import Deadline
    from models.engines.port import Scores

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}], "deadline_ms": 60_000}


@dataclass
class LongEngine(OverlapEngine):
    """Never answers, and tells when it begins and when it is called off."""

    began: asyncio.Event = field(default_factory=asyncio.Event)
    called_off: asyncio.Event = field(default_factory=asyncio.Event)

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """Wait for ever, except for the self-test."""
        if not self.armed:
            return await super().score(prefix, suffixes, deadline, scope=scope)
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.called_off.set()
            raise
        raise AssertionError


class QuietServer(uvicorn.Server):
    """Leaves pytest its signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def listening(door: Door) -> AsyncIterator[int]:
    """The door behind a real server; its port."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(create_app(door.gateway), lifespan="off", log_config=None, http="httptools")
        bound.listen()  # what connects before the server is up waits for it
        server = QuietServer(config)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        yield bound.getsockname()[1]
        server.should_exit = True
        await serving


async def test_a_closed_connection_calls_the_engine_off(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> None:
    """The engine drops the work, the room is given back, and the log says that the caller left."""
    engine = LongEngine()
    caplog.set_level("INFO", "tierwise.access")
    async with open_door(engine, deadline_ms=60_000) as door:
        async with listening(door) as port, asyncio.timeout(30):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            body = json.dumps(BODY).encode()
            writer.write(b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            await engine.began.wait()
            assert door.gateway.admission.bytes_in_flight == len(body)
            writer.close()
            await engine.called_off.wait()
        assert door.gateway.admission.bytes_in_flight == 0
    fields = [r.__dict__["fields"] for r in caplog.records if r.name == "tierwise.access"]
    assert [f["status"] for f in fields] == [499]


async def test_what_is_answered_at_once_does_not_listen() -> None:
    """A cached answer does not pay for a task."""
    asked = 0

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.disconnect"}

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await while_connected(receive, work()) == 7
    await asyncio.sleep(0.02)
    assert asked == 0


async def test_a_shutdown_is_not_taken_for_a_caller_that_left() -> None:
    """Cancelling the request's own task stays a cancellation, and its listener ends with it."""
    waiting = asyncio.Event()

    async def receive() -> Message:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    request = asyncio.create_task(while_connected(receive, asyncio.Event().wait()))
    await waiting.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await asyncio.sleep(0)
    assert not [t for t in asyncio.all_tasks() if t.get_name() == "listen-for-disconnect"]


async def test_a_failure_of_the_work_is_the_failure() -> None:
    """An error comes out as it is, and one that left gets no answer."""

    async def stays() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def leaves() -> Message:
        return {"type": "http.disconnect"}

    async def fails() -> None:
        await asyncio.sleep(0.02)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await while_connected(stays, fails())
    with pytest.raises(ClientDisconnect):
        await while_connected(leaves, fails())
