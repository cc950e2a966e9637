"""Servers under measurement: each a process of its own, on one core where that is asked for."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

END_SECONDS = 30.0  # for a server to end by itself


@dataclass(frozen=True)
class Server:
    """A running server: its process and its ports by protocol."""

    pid: int
    ports: Mapping[str, int]

    def processor_s(self) -> float:
        """Processor time until now, seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def server(
    command: Sequence[str],
    listening: Callable[[dict[str, Any]], Mapping[str, int] | None],
    *,
    core: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start a Python program that logs lines of JSON, and end it.

    Args:
        command: what follows the interpreter.
        listening: is given each line until it says where the server listens.
        core: the only one that the server may use; this process keeps its own.
        environment: variables on top of this process's.
    """
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path[1:]])
    mine = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})  # a child inherits it
    try:
        process = subprocess.Popen(  # noqa: S603 # our own commands
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path} | dict(environment or {}),
        )
    finally:
        os.sched_setaffinity(0, mine)
    try:
        assert process.stdout is not None
        ports = next((found for line in process.stdout if (found := listening(json.loads(line))) is not None), None)
        assert ports is not None, "the server ended"
        # The log goes on, as in production, and a full pipe would stop the server.
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)  # noqa: S607 # any will do
        try:
            yield Server(process.pid, ports)
            process.terminate()
            process.wait(END_SECONDS)
        finally:
            process.kill()
            drain.wait()
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def tierwise(
    checkpoint: Path, *, core: int | None = None, threads: int | None = None, **settings: object
) -> Iterator[Server]:
    """Our service: listening, and ready to score. Settings by name, groups with `__`."""
    chosen = {"http_port": 0, "grpc_port": 0, "admin_port": 0, **settings}
    if threads is not None:
        chosen["threads"] = threads

    def listening(line: dict[str, Any]) -> Mapping[str, int] | None:
        if line["message"] != "listening":
            return None
        return {name: int(line[name].rpartition(":")[2]) for name in ("http", "grpc", "admin")}

    command = ["-m", "service", "serve", "--checkpoint", str(checkpoint)]
    environment = {f"TIERWISE_{name.upper()}": str(value) for name, value in chosen.items()}
    with server(command, listening, core=core, environment=environment) as running:
        while not _ready(running.ports["admin"]):
            time.sleep(0.05)
        yield running


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.closing(connection):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
