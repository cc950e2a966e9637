"""Runs the doors of one process: binds, serves, and ends in order on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
from typing import TYPE_CHECKING

import uvicorn

from service.access.follow import follow as follow_files
from service.gateway import open_gateway
from service.http.admin import create_admin
from service.http.app import create_app
from service.knowledge import follow
from service.sockets import listen_on

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from starlette.types import ASGIApp

    from service.gateway import Gateway
    from service.settings import Settings

log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Leaves the signals to us: two servers share one process and end in order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SettingsError: a port is taken, or a setting does not fit this machine.
        CheckpointError: the checkpoint cannot be loaded.
    """
    with (
        listen_on("http_port", settings.host, settings.http_port) as door,
        listen_on("admin_port", settings.admin_host, settings.admin_port) as admin,
    ):
        gateway = open_gateway(settings)
        try:
            await run(gateway, door, admin)
        finally:
            await gateway.close()


async def run(gateway: Gateway, door: socket.socket, admin: socket.socket) -> None:
    """Serve a gateway on bound sockets until SIGTERM or SIGINT, then drain."""
    settings = gateway.settings
    http = _server(create_app(gateway), settings)
    metrics = _server(create_admin(gateway), settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, stop, http)
    gc.collect()
    gc.freeze()  # what is loaded by now stays; the collector need not walk it during requests
    watch = asyncio.create_task(_watch(gateway), name="watch")
    servers = [
        asyncio.create_task(http.serve(sockets=[door]), name="http"),
        asyncio.create_task(metrics.serve(sockets=[admin]), name="admin"),
    ]
    waiting = asyncio.create_task(stop.wait(), name="stop")
    log.info("listening", extra={"fields": {"http": _address(door), "admin": _address(admin)}})
    try:
        done, _ = await asyncio.wait([watch, waiting, *servers], return_when=asyncio.FIRST_COMPLETED)
        log.info("draining", extra={"fields": {"ended": sorted(task.get_name() for task in done)}})
    finally:
        gateway.health.drain()
        waiting.cancel()
        http.should_exit = True
        await asyncio.wait(servers[:1])
        metrics.should_exit = True
        await asyncio.wait(servers)
        watch.cancel()
        await asyncio.wait([watch])
    for task in (watch, *servers):
        if not task.cancelled() and (error := task.exception()):
            raise _innermost(error)


async def _watch(gateway: Gateway) -> None:
    """What runs beside the doors as long as the process."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.health.watch(), name="health")
        keys = follow_files(gateway.access.refresh, gateway.settings.access.refresh_seconds)
        tasks.create_task(keys, name="keys")
        for name, live in gateway.knowledge.items():
            tasks.create_task(follow(name, live, gateway.settings.knowledge_refresh_seconds), name=name)


def _stop(stop: asyncio.Event, server: uvicorn.Server) -> None:
    if stop.is_set():
        server.force_exit = True  # asked twice: do not wait for requests in flight
    stop.set()


def _server(app: ASGIApp, settings: Settings) -> _Server:
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(settings.keep_alive_seconds),
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )
    return _Server(config)


def _innermost(error: BaseException) -> BaseException:
    """What ended a group of tasks: the command line shows one sentence, not a tree."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _address(bound: socket.socket) -> str:
    host, port, *_ = bound.getsockname()
    return f"http://{host}:{port}"
