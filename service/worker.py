"""One worker: a process that serves beside others on the same ports. `service.workers` is its parent."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

import uvloop

from models.errors import ModelError
from service.engines import EMBEDDED
from service.logs import configure_logging
from service.server import Stop, serve_on
from service.settings import SettingsError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from service.settings import Settings
    from service.sockets import Ports

CANNOT_START: Final = 2  # exit status


def work(name: str, settings: Settings, ports: Ports, leash: Connection, patient: bool) -> None:  # noqa: FBT001 # multiprocessing passes by position
    """The whole life of one worker's process."""
    os.setpgrp()  # Ctrl-C is for the parent, which passes it on
    configure_logging(settings.log_level)
    for handler in logging.getLogger().handlers:
        handler.addFilter(partial(_sign, name))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_work(settings, ports, leash, patient=patient))
    except (SettingsError, ModelError) as error:
        sys.stderr.write(f"tierwise cannot start: {error}\n")
        sys.exit(CANNOT_START)


def _sign(name: str, record: logging.LogRecord) -> bool:
    """Every line says which worker wrote it."""
    record.fields = {**getattr(record, "fields", {}), "worker": name}
    return True


async def _work(settings: Settings, ports: Ports, leash: Connection, *, patient: bool) -> None:
    stop = Stop()
    loop = asyncio.get_running_loop()

    def parent_ended() -> None:
        loop.remove_reader(leash.fileno())
        stop.ask()

    loop.add_reader(leash.fileno(), parent_ended)
    await serve_on(ports, share_of(settings), stop, patient=patient)


def share_of(settings: Settings) -> Settings:
    """A worker's own settings: its part of the threads."""
    if settings.engine not in EMBEDDED:
        return settings
    from models.engines.onnx.cores import cores  # noqa: PLC0415 # the parent loads no engine

    threads = settings.threads or cores()
    return settings.model_copy(update={"threads": max(1, threads // settings.workers)})
