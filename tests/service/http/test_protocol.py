"""Connections that are slow, greedy or broken, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import pytest

from service.http.app import create_app
from service.http.door import HttpDoor
from service.settings import load_settings
from service.sockets import listen_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from starlette.types import ASGIApp, Receive, Scope, Send

    from tests.service.conftest import Door

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

HEAD = b"GET /livez HTTP/1.1\r\nhost: tierwise\r\n"
QUICK: dict[str, Any] = {"head_seconds": 0.3, "body_seconds": 0.3, "write_seconds": 0.3}
PATIENCE = 20.0  # for what must end; the test's own limit on a busy machine

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path, the names of the headers and the size of the body, after `?seconds`."""
    size = 0
    while (message := await receive()).get("more_body"):
        size += len(message["body"])
    await asyncio.sleep(float(scope["query_string"] or 0))
    answer = {"path": scope["path"], "headers": [n.decode() for n, _ in scope["headers"]], "size": size}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@dataclass
class Server:
    """An app behind the door, and the connections to it."""

    port: int
    wires: list[Wire] = field(default_factory=list)

    async def connect(self) -> Wire:
        """One more, closed in the end."""
        self.wires.append(await asyncio.open_connection("127.0.0.1", self.port))
        return self.wires[-1]


@asynccontextmanager
async def serving(app: ASGIApp = echo, **connections: Any) -> AsyncIterator[Server]:
    """Serve an app with these limits."""
    settings = load_settings(connections=connections)
    with listen_on("http_port", "127.0.0.1", 0) as bound:
        door = HttpDoor("http", app, bound, settings)
        task = asyncio.create_task(door.serve())
        server = Server(bound.getsockname()[1])
        try:
            yield server
        finally:
            for _, writer in server.wires:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
            door.abort()
            await task


async def rest(wire: Wire, pieces: Iterable[bytes] = ()) -> bytes:
    """Everything up to the end of the connection, however it ends, while sending pieces until an answer comes."""
    reader, writer = wire

    async def trickle() -> None:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(trickle())
    parts = []
    try:
        async with asyncio.timeout(PATIENCE):
            while part := await reader.read(65536):
                sending.cancel()
                parts.append(part)
    except ConnectionError:
        pass
    finally:
        sending.cancel()
    return b"".join(parts)


async def answer(wire: Wire) -> tuple[int, bytes]:
    """One chunked or sized answer: status and body."""
    reader, _ = wire
    async with asyncio.timeout(PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split()[1])
        if b"content-length: " in head:
            return status, await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))
        body = await reader.readuntil(b"0\r\n\r\n")
    return status, body.split(b"\r\n")[1]


def code(raw: bytes) -> tuple[int, str]:
    """Status and problem code of a raw answer."""
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["code"]


@pytest.mark.parametrize("piece", [b"x-a: b\r\n", b"x"])
async def test_a_head_that_trickles_in_is_cut_off(piece: bytes) -> None:
    """Sending a little now and then does not keep a connection."""
    async with serving(**QUICK) as server:
        wire = await server.connect()
        wire[1].write(HEAD)
        assert code(await rest(wire, repeat(piece))) == (408, "slow-request")


@pytest.mark.parametrize("piece", [b"", b"\r\n"])
async def test_a_connection_that_asks_nothing_is_closed(piece: bytes) -> None:
    """Silence is not a request, nor are the empty lines that may stand before one."""
    async with serving(**QUICK) as server:
        wire = await server.connect()
        assert await rest(wire, repeat(piece)) == b""


async def test_empty_lines_do_not_keep_a_connection_after_its_first_request() -> None:
    """They end the wait for the next request no more than silence does."""
    async with serving(**QUICK) as server:
        wire = await server.connect()
        wire[1].write(HEAD + b"\r\n")
        assert (await answer(wire))[0] == 200
        assert await rest(wire, repeat(b"\r\n")) == b""


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"".join(b"x-%d: 1\r\n" % n for n in range(20)),
        HEAD + b"x-long: " + b"a" * 5_000 + b"\r\n",
        b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\nhost: tierwise\r\n",
        b"".join((HEAD, *(b"x-%d: %s\r\n" % (n, b"a" * 500) for n in range(9)))),
    ],
)
async def test_a_head_too_large_is_refused_and_not_run(head: bytes) -> None:
    """By number and by size, in one piece or in several; a body behind it changes nothing."""
    async with serving(headers=10, head_bytes=4_096) as server:
        for step in (len(head), 1_000):
            wire = await server.connect()
            pieces = (head[start : start + step] for start in range(0, len(head), step))
            assert code(await rest(wire, chain(pieces, [b"content-length: 3\r\n\r\nabc"]))) == (431, "head-too-large")


async def test_one_header_without_an_end_is_refused() -> None:
    """No line of it is ever complete."""
    async with serving(head_bytes=4_096) as server:
        wire = await server.connect()
        wire[1].write(HEAD + b"x-endless: ")
        assert code(await rest(wire, repeat(b"a" * 1_000))) == (431, "head-too-large")


async def test_trailers_are_no_headers_and_are_counted() -> None:
    """What comes after the body cannot change who is calling, nor fill the memory."""
    chunked = b"POST / HTTP/1.1\r\nhost: tierwise\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    async with serving(head_bytes=4_096) as server:
        wire = await server.connect()
        wire[1].write(chunked + b"x-api-key: stolen\r\n\r\n")
        status, body = await answer(wire)
        assert (status, json.loads(body)["headers"]) == (200, ["host", "transfer-encoding"])
        wire[1].write(chunked + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 500) for n in range(20)))
        assert b" 431 " in await rest(wire)


async def test_what_is_not_http_is_a_problem_too() -> None:
    """One error format, also where no route was reached."""
    async with serving() as server:
        wire = await server.connect()
        wire[1].write(b"\x16\x03\x01 hello\r\n\r\n")
        assert code(await rest(wire)) == (400, "malformed-head")


async def test_one_connection_too_many_is_turned_away() -> None:
    """Those that are open are served on, and there is room again when one ends."""
    async with serving(most=2) as server:
        first, second = await server.connect(), await server.connect()
        for wire in (first, second):
            wire[1].write(HEAD + b"\r\n")
            assert (await answer(wire))[0] == 200
        raw = await rest(await server.connect())
        assert code(raw) == (503, "overloaded")
        assert b"retry-after: 1\r\n" in raw
        first[1].write(HEAD + b"\r\n")
        assert (await answer(first))[0] == 200
        second[1].close()
        for _ in range(100):
            third = await server.connect()
            third[1].write(HEAD + b"\r\n")
            if (await answer(third))[0] == 200:
                break
        else:
            pytest.fail("there was no room again")


async def test_patience_is_for_the_caller_and_not_for_us() -> None:
    """An answer may take longer than any of the limits, also with more requests waiting on the connection."""
    async with serving(head_seconds=1, body_seconds=1, write_seconds=1) as server:
        wire = await server.connect()
        slow = b"POST /%d?1.3 HTTP/1.1\r\nhost: tierwise\r\ncontent-length: 3\r\n\r\nabc"
        wire[1].write(slow % 1 + slow % 2 + slow % 3 + b"GET /4 HTTP/1.1\r\n")
        for n in (1, 2, 3):
            status, body = await answer(wire)
            assert (status, json.loads(body)["path"]) == (200, f"/{n}")
        wire[1].write(b"host: tierwise\r\n\r\n")
        assert json.loads((await answer(wire))[1])["path"] == "/4"


async def test_an_answer_that_nobody_takes_is_given_up() -> None:
    """A caller that stops reading holds neither the connection nor the request."""

    async def pour(scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % 2**28)]})
        await send({"type": "http.response.body", "body": b"x" * 2**28})

    async with serving(pour, **QUICK, most=1) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as idle:
            idle.sendall(HEAD + b"\r\n")
            for _ in range(200):
                reader, writer = await server.connect()
                writer.write(HEAD + b"\r\n")
                if b" 200 " in await reader.readline():
                    break
                await asyncio.sleep(0.05)
            else:
                pytest.fail("the connection is still held")


async def test_a_slow_body_is_answered_and_cut_off(open_door: OpenDoor, caplog: pytest.LogCaptureFixture) -> None:
    """The route that waits for it ends, and its line in the log says why."""
    async with open_door(connections=QUICK) as door, serving(create_app(door.gateway), **QUICK) as server:
        wire = await server.connect()
        wire[1].write(b"POST /v1/score HTTP/1.1\r\nhost: tierwise\r\ncontent-length: 100\r\n\r\n{")
        with caplog.at_level(logging.INFO, "tierwise.access"):
            assert code(await rest(wire, repeat(b" "))) == (408, "slow-request")
            while not caplog.records:  # noqa: ASYNC110 # the route hears of it in its own time
                await asyncio.sleep(0.01)
        fields = [r.__dict__["fields"] for r in caplog.records if r.name == "tierwise.access"]
        assert [(line["status"], line["code"]) for line in fields] == [(408, "slow-request")]
        assert door.engine.calls == []


async def test_a_refused_caller_cannot_keep_the_connection_by_sending_on(open_door: OpenDoor) -> None:
    """Nobody reads the body of a request that was answered already."""
    async with open_door() as door, serving(create_app(door.gateway), **QUICK) as server:
        wire = await server.connect()
        wire[1].write(b"POST /nowhere HTTP/1.1\r\nhost: tierwise\r\ncontent-length: 100000\r\n\r\n{")
        assert b" 404 " in await rest(wire, repeat(b" "))
