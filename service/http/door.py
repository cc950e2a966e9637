"""The HTTP door as a server: uvicorn on a bound socket, ended so that no accepted call is lost."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING

import uvicorn

from service.http.protocol import limited
from service.sockets import turn_away

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from service.access.tls import Tls
    from service.settings import Settings

# So long, connections that wait in the kernel are taken and what their callers have sent arrives.
LINGER_SECONDS = 0.25


class HttpDoor:
    """One app on one socket. See `service.door.Door`."""

    def __init__(
        self, name: str, app: ASGIApp, bound: socket.socket, settings: Settings, *, tls: Tls | None = None
    ) -> None:
        self.name = name
        self._bound = bound
        self._shared = settings.workers > 1  # then the others still take connections, and the parent turns them away
        self._leaving = False
        self._server = _Server(
            uvicorn.Config(
                CloseWhile(app, lambda: self._leaving),
                http=limited(settings.connections),
                ssl_context_factory=(lambda *_: tls.context) if tls else None,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
                timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
            )
        )
        self.address = address_of(bound, "https" if tls else "http")

    async def serve(self) -> None:
        """Take calls until `end`; return when none is in flight."""
        await self._server.serve(sockets=[self._bound])

    def announce(self) -> None:
        """From now on every answer closes its connection, so that callers open their next one elsewhere."""
        self._leaving = True

    def end(self) -> None:
        """Take no new connections; finish the calls in flight."""
        self._leaving = True
        if not self._shared:
            turn_away(self._bound)
        self._server.should_exit = True

    def abort(self) -> None:
        """Do not wait for calls in flight."""
        self._server.should_exit = self._server.force_exit = True


def address_of(bound: socket.socket, scheme: str = "http") -> str:
    """Where callers find a bound socket."""
    host, port, *_ = bound.getsockname()
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class CloseWhile:
    """Pure ASGI: answers that begin while the condition holds say `connection: close`."""

    def __init__(self, app: ASGIApp, condition: Callable[[], bool]) -> None:
        self._app = app
        self._condition = condition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._condition():
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, closing)


class _Server(uvicorn.Server):
    """Leaves the signals to us: several doors share one process and end in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn would drop connections that nobody has taken yet or whose request is on its way; wait for them."""
        if not self.force_exit:
            await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)
