"""The load generator: what it counts, and from when."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

from bench.load import ITEMS, SETTLE, Generator, Load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GOOD = b'{"degraded":[]}'
PARTIAL = b'{"degraded":["deadline"]}'


@asynccontextmanager
async def answering(body: bytes, seconds: float, status: bytes = b"200 OK") -> AsyncIterator[Generator]:
    """A generator in front of a server that answers so, one request at a time on each connection, in two pieces."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.split(b"content-length: ")[1].split(b"\r")[0])
            raw = await reader.readexactly(length)
            assert raw.count(b'"title"') == ITEMS
            await asyncio.sleep(seconds)
            writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n" % (status, len(body)))
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(body)

    def ended(_: object, context: dict[str, object]) -> None:
        assert isinstance(context.get("exception"), asyncio.IncompleteReadError)

    asyncio.get_running_loop().set_exception_handler(ended)  # a caller that hangs up
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = await asyncio.start_server(serve, sock=bound)
        service = SimpleNamespace(ports={"http": bound.getsockname()[1]}, processor_s=lambda: 0.0)
        generator = Generator(service, deadline_ms=10_000.0)
        yield generator
        for connection in generator._idle:
            assert connection.transport is not None
            connection.transport.close()
        await asyncio.sleep(0.01)
        server.close()


async def test_good_answers_are_complete_and_in_time() -> None:
    """Partial ones, refused ones and those that never came are none; every request has one outcome."""
    async with answering(GOOD, 0.0) as generator:
        load = await generator.offer(40.0, 1.5, seed=1)
        assert (len(load.good), load.bad) == (60, [])
    async with answering(PARTIAL, 0.0) as generator:
        load = await generator.offer(40.0, 1.5, seed=1)
        assert (load.good, len(load.bad)) == ([], 60)
    async with answering(b"{}", 0.0, b"503 Service Unavailable") as generator:
        load = await generator.offer(40.0, 1.5, seed=1)
        assert (load.good, len(load.bad)) == ([], 60)
        assert set(load.statuses) == {503}


def test_the_start_of_a_load_and_what_came_late_do_not_count() -> None:
    """Goodput is good answers a second after the queue has filled; quantiles are of answers alone."""
    load = Load(rate=10.0, seconds=SETTLE + 2.0, deadline=0.5)
    load.note(0.5 * SETTLE, 0.1, 200, complete=True)
    for n, latency in enumerate((0.1, 0.2, 0.3, 0.6)):
        load.note(SETTLE + 0.1 * n, latency, 200, complete=True)
    load.note(SETTLE, 0.1, 200, complete=False)
    load.note(SETTLE, 0.0, 503, complete=False)
    assert load.goodput == 1.5
    assert load.quantile_ms(0.99) == 600.0
    assert load.statuses == {200: 5, 503: 1}
