"""A TCP proxy that spoils what passes through it: latency, silence, resets, refused and slowly closed connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 65_536


class TcpProxy:
    """Stands between a client and a server on this machine. Faults are attributes, and hold from the next bytes on.

    Attributes:
        port: where it listens.
        latency: seconds that each answer is late.
        refuses: new connections are reset at once.
        linger: seconds between the end of the server's side and the close that the client sees.
        rewrite: makes other bytes of an answer.
        connections: accepted so far.
        forwarded: bytes that clients have sent so far.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._upstream = (host, port)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._speaks = asyncio.Event()
        self.port = 0
        self.heal()
        self.connections = 0
        self.forwarded = 0

    def heal(self) -> None:
        """No faults from now on."""
        self.latency = 0.0
        self.silent = False
        self.refuses = False
        self.linger = 0.0
        self.rewrite: Callable[[bytes], bytes] | None = None

    @property
    def silent(self) -> bool:
        """Whether answers are held back."""
        return not self._speaks.is_set()

    @silent.setter
    def silent(self, value: bool) -> None:
        if value:
            self._speaks.clear()
        else:
            self._speaks.set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drop every connection and stop."""
        assert self._listener is not None
        self._listener.close()
        self.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Reset every open connection, as a machine that lost its state does."""
        for writer in tuple(self._writers):
            _reset(writer)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            _reset(writer)
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            _reset(writer)
            return
        self._writers |= {writer, upstream_writer}
        asking = asyncio.create_task(self._forward(reader, upstream_writer))
        try:
            await self._answer(upstream_reader, writer)
            await asyncio.sleep(self.linger)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            self._writers -= {writer, upstream_writer}
            for each in (writer, upstream_writer):
                each.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(CHUNK):
                self.forwarded += len(part)
                writer.write(part)
                await writer.drain()
            writer.close()  # the client has closed: so does the server's side, and `_answer` ends

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(CHUNK):
                await asyncio.sleep(self.latency)
                await self._speaks.wait()
                writer.write(self.rewrite(part) if self.rewrite else part)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: no farewell, nothing that was under way arrives."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
