"""Runs the doors around the fake engine in a process of its own: `python -m tests.service.door_process CHECKPOINT`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from service.fetch import Fetcher
from service.gateway import assemble
from service.http.admin import create_admin
from service.http.door import HttpDoor
from service.logs import configure_logging
from service.server import Stop, open_doors, run
from service.settings import load_settings
from service.sockets import open_ports
from tests.service.conftest import OverlapEngine, judge_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.deadline import Deadline
    from models.engines.port import Scores


class SlowEngine(OverlapEngine):
    """Takes a third of a second for a query that begins with `slow`."""

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """As the fake engine, later."""
        if len(prefix) > len("abcd") + 1:  # longer than the canaries' query
            await asyncio.sleep(0.3)
        return await super().score(prefix, suffixes, deadline, scope=scope)


async def main(checkpoint: Path) -> None:
    """Serve on free ports; the log says which. More settings come from the environment."""
    settings = load_settings(checkpoint=checkpoint, http_port=0, grpc_port=0, admin_port=0, deadline_ms=60_000)
    with open_ports(settings) as ports:
        gateway = assemble(settings, judge_on(checkpoint, SlowEngine()), Fetcher(None, 1.0), embedded=True)
        admin = HttpDoor("admin", create_admin(gateway), ports.admin, settings)
        await run(gateway, lambda: open_doors(gateway, ports), admin, Stop())
        await gateway.close()


if __name__ == "__main__":
    configure_logging("info")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1])))
