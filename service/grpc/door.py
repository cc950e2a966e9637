"""The gRPC door as a server: the service, health and reflection on a port of their own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import grpc.aio
from grpc_health.v1 import health, health_pb2

from service.grpc.intake import UNREAD_BYTES
from service.grpc.open import Open
from service.grpc.relevance import SERVICE, Relevance

if TYPE_CHECKING:
    import socket

    from service.gateway import Gateway
    from service.settings import Settings

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class GrpcDoor:
    """See `service.door.Door`. Make it in the loop that serves.

    Args:
        gateway: what answers.
        port: bound and not listening (`service.sockets.reserve`): gRPC takes no socket, it binds beside this one.
        credentials: TLS; plain text without.
    """

    name = "grpc"

    def __init__(
        self, gateway: Gateway, port: socket.socket, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._gateway = gateway
        self._server = grpc.aio.server(options=_options(gateway.settings))
        self._health = health.aio.HealthServicer()
        self._announcing: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._hurried = asyncio.Event()
        host, number, *_ = port.getsockname()
        where = f"{f'[{host}]' if ':' in host else host}:{number}"
        if credentials is None:
            self._server.add_insecure_port(where)
        else:
            self._server.add_secure_port(where, credentials)
        self.address = f"{'grpc' if credentials is None else 'grpcs'}://{where}"

    async def serve(self) -> None:
        """Take calls until `end`; return when none is in flight. Health says NOT_SERVING until the gateway is ready."""
        await self._tell(ready=False)
        relevance = Relevance(self._gateway, self._ended)
        unlocked = Open(self._health, SERVICE, self._gateway.settings.connections.body_seconds)
        self._server.add_generic_rpc_handlers((relevance.handler(), *unlocked.handlers()))
        following = asyncio.create_task(self._follow(), name="grpc-health")
        await self._server.start()
        try:
            await self._ended.wait()
        finally:
            following.cancel()
            await self._health.enter_graceful_shutdown()
            hurry = asyncio.create_task(self._hurry(), name="grpc-hurry")
            await self._server.stop(self._gateway.settings.drain_seconds)
            hurry.cancel()
            await asyncio.wait([hurry])

    def announce(self) -> None:
        """Health says NOT_SERVING from now on; calls are taken."""
        self._announcing = asyncio.create_task(self._health.enter_graceful_shutdown(), name="grpc-announce")

    def end(self) -> None:
        """Take no new calls; finish those in flight."""
        self._ended.set()

    def abort(self) -> None:
        """Do not wait for calls in flight."""
        self._hurried.set()
        self._ended.set()

    async def _hurry(self) -> None:
        await self._hurried.wait()
        await self._server.stop(0)

    async def _follow(self) -> None:
        async for ready in self._gateway.health.changes():
            await self._tell(ready=ready)

    async def _tell(self, *, ready: bool) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, _SERVING if ready else _NOT_SERVING)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.limits.body_bytes),
        ("grpc.max_concurrent_streams", 1024),  # calls in flight on one connection; more wait in their client
        ("grpc.http2.lookahead_bytes", UNREAD_BYTES),
        ("grpc.http2.bdp_probe", 0),  # it lets that grow to hundreds of megabytes, of messages that nobody reads too
        ("grpc.so_reuseport", 1),  # beside the reserved socket, and beside other workers
        ("grpc.keepalive_time_ms", 60_000),  # a client that is gone without a word is noticed within 80 s
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # how often a client may ask whether we are there
    ]
