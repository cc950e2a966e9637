"""Stands between a pool and a real server, and spoils the server's answers as told."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Self

import httpx

Fault = Callable[[bytes], tuple[int, bytes, int]]

# A good reply's body -> status, body, bytes of it to send before the connection breaks off.
FAULTS: dict[str, Fault] = {
    "500": lambda _: (500, b"Internal Server Error", 99),
    "garbage": lambda _: (200, b"\x00<html>not what you asked for</html>", 99),
    "half a body": lambda body: (200, body, len(body) // 2),
    "others' labels": lambda body: (200, body.replace(b'"token_id:', b'"token_id:9'), 10**9),
    "not a number": lambda body: (200, body.replace(b'"token_id:', b'"token_id:1":NaN,"token_id:'), 10**9),
}


class Proxy:
    """One address in front of the server's. `fault` names what happens to its answers, None leaves them alone."""

    def __init__(self, server: str) -> None:
        self.fault: str | None = None
        self.url = ""
        self._client = httpx.AsyncClient(base_url=server, timeout=600.0)
        self._listener: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._listener = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drop every connection."""
        assert self._listener is not None
        self._listener.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._client.aclose()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        self._open.discard(task)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        asked = await reader.readexactly(int(headers.get("content-length", 0)))
        answer = await self._client.request(
            method, path, content=asked, headers={"content-type": "application/json"} if asked else {}
        )
        status, content, most = answer.status_code, answer.content, len(answer.content)
        if self.fault and path == "/v1/completions":
            status, content, most = FAULTS[self.fault](content)
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content[:most])
        await writer.drain()
        return most >= len(content)
