"""Runs the doors of one process: binds, serves, and ends in order on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

from service.access.follow import follow as follow_files
from service.gateway import open_gateway
from service.grpc.door import GrpcDoor
from service.http.admin import create_admin
from service.http.app import create_app
from service.http.door import HttpDoor
from service.knowledge import follow
from service.reload import follow_checkpoint
from service.sockets import open_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from service.door import Door
    from service.gateway import Gateway
    from service.settings import Settings
    from service.sockets import Ports

log = logging.getLogger(__name__)

CLOSE_SECONDS = 3.0  # for a forward pass that runs; with drain_seconds and the doors' own, less than any grace period
PATIENCE_SECONDS = 60.0  # how long a process that others stand in for takes no calls before its first probe


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SettingsError: a port is taken, or a setting does not fit this machine.
        CheckpointError: the checkpoint cannot be loaded.
    """
    with open_ports(settings) as ports:
        await serve_on(ports, settings, Stop())


async def serve_on(ports: Ports, settings: Settings, stop: Stop, *, patient: bool = False) -> None:
    """Open a gateway and serve it on bound sockets until told to stop; see `serve` and `run`."""
    gateway = open_gateway(settings)
    try:
        await run(
            gateway,
            lambda: open_doors(gateway, ports),
            HttpDoor("admin", create_admin(gateway), ports.admin, settings),
            stop,
            patient=patient,
        )
    finally:
        await _close(gateway)


def open_doors(gateway: Gateway, ports: Ports) -> list[Door]:
    """The doors for callers. The admin door is none of them: it speaks plain HTTP, on a port of its own."""
    tls = gateway.tls
    return [
        HttpDoor("http", create_app(gateway), ports.http, gateway.settings, tls=tls),
        GrpcDoor(gateway, ports.grpc, tls.grpc_credentials() if tls else None),
    ]


class Stop:
    """Asks a process to end: once in order, twice at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()

    def ask(self) -> None:
        """End."""
        if self.asked.is_set():
            self.hurried.set()
        self.asked.set()

    def on_signals(self, *numbers: signal.Signals) -> None:
        """From now on these signals ask."""
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, self.ask)


async def run(
    gateway: Gateway, open_doors: Callable[[], Sequence[Door]], admin: Door, stop: Stop, *, patient: bool = False
) -> None:
    """Serve a gateway at its doors until SIGTERM, SIGINT or `stop`, then drain.

    Args:
        gateway: closed by the caller.
        open_doors: makes those for callers.
        admin: open until the last call is answered.
        stop: who else may end it.
        patient: open the doors only after the first probe; others take the calls meanwhile.
    """
    stop.on_signals(signal.SIGTERM, signal.SIGINT)
    gc.collect()
    gc.freeze()  # what is loaded by now stays; the collector need not walk it during requests
    watch = asyncio.create_task(_watch(gateway), name="watch")
    inner = asyncio.create_task(admin.serve(), name=admin.name)
    waiting = asyncio.create_task(stop.asked.wait(), name="stop")
    doors: Sequence[Door] = ()
    servers: list[asyncio.Task[None]] = []
    try:
        if patient:
            known = asyncio.create_task(gateway.health.concluded.wait(), name="probe")
            await asyncio.wait(
                [known, watch, waiting, inner], timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            known.cancel()
        doors = open_doors()
        servers += [asyncio.create_task(door.serve(), name=door.name) for door in doors]
        log.info("listening", extra={"fields": {door.name: door.address for door in (*doors, admin)}})
        done, _ = await asyncio.wait([watch, waiting, inner, *servers], return_when=asyncio.FIRST_COMPLETED)
        log.info("draining", extra={"fields": {"ended": sorted(task.get_name() for task in done)}})
    finally:
        waiting.cancel()
        await _drain(gateway, doors, stop, servers)
        admin.end()
        await asyncio.wait([inner])
        watch.cancel()
        await asyncio.wait([watch])
    for task in (watch, inner, *servers):
        if not task.cancelled() and (error := task.exception()):
            raise _innermost(error)


async def _drain(gateway: Gateway, doors: Sequence[Door], stop: Stop, servers: Sequence[asyncio.Task[None]]) -> None:
    """Not ready, then a pause in which load balancers notice, then no new calls; returns when none is in flight."""
    gateway.health.drain()
    for door in doors:
        door.announce()
    hurried = asyncio.create_task(stop.hurried.wait(), name="hurry")
    if stop.asked.is_set():  # not when a door has failed
        await asyncio.wait([hurried], timeout=gateway.settings.drain_pause_seconds)
    for door in doors:
        door.end()
    finished = asyncio.gather(*servers, return_exceptions=True)
    either: set[asyncio.Future[Any]] = {finished, hurried}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if hurried.done():
        for door in doors:
            door.abort()
    await finished
    hurried.cancel()


async def _close(gateway: Gateway) -> None:
    """Close everything; an engine that hangs does not keep the process."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await gateway.close()
    except TimeoutError:
        log.error("the engine does not close; ending without it")  # noqa: TRY400 # where it waited says nothing
        logging.shutdown()
        os._exit(1)  # its threads would hold up an orderly end


async def _watch(gateway: Gateway) -> None:
    """What runs beside the doors as long as the process."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(gateway.health.watch(), name="health")
        keys = follow_files(gateway.access.refresh, gateway.settings.access.refresh_seconds)
        tasks.create_task(keys, name="keys")
        if gateway.tls is not None:
            certificates = follow_files(gateway.tls.refresh, gateway.settings.access.refresh_seconds)
            tasks.create_task(certificates, name="certificates")
        if (pause := gateway.settings.checkpoint_refresh_seconds) is not None:
            tasks.create_task(follow_checkpoint(gateway, pause), name="checkpoint")
        if gateway.shadow is not None:
            tasks.create_task(gateway.shadow.run(), name="shadow")
        for name, live in gateway.knowledge.items():
            tasks.create_task(follow(name, live, gateway.settings.knowledge_refresh_seconds), name=name)


def _innermost(error: BaseException) -> BaseException:
    """What ended a group of tasks: the command line shows one sentence, not a tree."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
