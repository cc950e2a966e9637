"""The service as a process: real sockets, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from service.settings import SettingsError
from service.sockets import listen_on, turn_away

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}, {"id": "b", "title": "wxyz"}]}
SLOW = {**BODY, "query": "abcdabcd"}


@dataclass
class Running:
    """A service process and the lines it has logged so far."""

    process: subprocess.Popen[str]
    lines: list[dict[str, Any]]
    http: str = ""
    admin: str = ""
    grpc: str = ""

    def read_until(self, message: str) -> dict[str, Any]:
        """Read the log up to a line with this message."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))
            if self.lines[-1]["message"].startswith(message):
                return self.lines[-1]
        raise AssertionError(f"the log ended without {message!r}: {self.lines}")


@contextmanager
def running(checkpoint: Path, **variables: str) -> Iterator[Running]:
    """Start a service and wait until it is ready; kill it in the end if it still runs."""
    command = [sys.executable, "-m", "tests.service.door_process", str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}) as process:
        service = Running(process, [])
        try:
            listening = service.read_until("listening")
            service.http, service.admin, service.grpc = (listening[door] for door in ("http", "admin", "grpc"))
            service.read_until("ready")
            yield service
        finally:
            process.kill()


def test_a_real_process_serves_both_doors(checkpoint: Path) -> None:
    """Scores on one port, metrics on the other, one JSON line for each request."""
    with running(checkpoint) as service, httpx.Client(base_url=service.http) as client:
        assert client.get("/readyz").status_code == 200
        response = client.post("/v1/score", json=BODY, headers={"x-request-id": "r1"})
        assert [r["id"] for r in response.json()["results"]] == ["a", "b"]
        assert "tierwise_requests_total" in httpx.get(f"{service.admin}/metrics").text
        service.read_until("request")  # the probe
        assert service.read_until("request")["id"] == "r1"


def test_a_chunked_body_over_the_limit_is_cut_off(checkpoint: Path) -> None:
    """No content-length is needed to refuse, and the service goes on."""
    with running(checkpoint) as service, httpx.Client(base_url=service.http) as client:
        response = client.post("/v1/score", content=(b" " * 65536 for _ in range(2000)))
        assert response.status_code == 413
        assert client.post("/v1/score", json=BODY).status_code == 200


def test_sigterm_lets_requests_in_flight_finish(checkpoint: Path) -> None:
    """What was accepted is answered, then the process ends with 0 and takes nothing new."""

    async def drain(service: Running) -> list[int]:
        async with httpx.AsyncClient(base_url=service.http, timeout=10) as client:
            calls = [asyncio.create_task(client.post("/v1/score", json=SLOW)) for _ in range(8)]
            await asyncio.sleep(0.15)
            service.process.send_signal(signal.SIGTERM)
            return [response.status_code for response in await asyncio.gather(*calls)]

    with running(checkpoint) as service:
        assert asyncio.run(drain(service)) == [200] * 8
        assert service.process.wait(timeout=10) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.http}/livez")


def test_before_it_drains_it_serves_on_and_sends_callers_elsewhere(checkpoint: Path) -> None:
    """During the pause readiness is off, every answer closes its connection, and none is refused."""
    with running(checkpoint, TIERWISE_DRAIN_PAUSE_SECONDS="3") as service:
        with httpx.Client(base_url=service.http) as client:
            assert "connection" not in client.post("/v1/score", json=BODY).headers
            service.process.send_signal(signal.SIGTERM)
            service.read_until("draining")
            for _ in range(2):
                response = client.post("/v1/score", json=BODY)
                assert (response.status_code, response.headers["connection"]) == (200, "close")
        readiness = httpx.get(f"{service.admin}/readyz")
        assert (readiness.status_code, readiness.json()["checks"][0]["detail"]) == (503, "shutting down")
        assert httpx.get(f"{service.admin}/livez").status_code == 200
        assert service.process.wait(timeout=20) == 0


def test_asked_twice_it_does_not_wait(checkpoint: Path) -> None:
    """A second signal ends the pause and the calls in flight."""
    with running(checkpoint, TIERWISE_DRAIN_PAUSE_SECONDS="600") as service:
        service.process.send_signal(signal.SIGTERM)
        service.read_until("draining")
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(timeout=20) == 0


def test_an_engine_that_does_not_close_does_not_keep_the_process(checkpoint: Path) -> None:
    """The grace period is for calls; threads that hang are left behind, with a line in the log."""
    code = f"""
import asyncio, threading
from pathlib import Path
from service import server
from service.fetch import Fetcher
from service.gateway import assemble
from service.logs import configure_logging
from service.settings import Settings
from tests.service.conftest import OverlapEngine, judge_on

class Hung(OverlapEngine):
    async def close(self):
        await asyncio.to_thread(threading.Event().wait)

configure_logging("info")
server.CLOSE_SECONDS = 0.2
judge = judge_on(Path({str(checkpoint)!r}), Hung())
gateway = assemble(Settings(checkpoint={str(checkpoint)!r}), judge, Fetcher(None, 1.0), embedded=True)
asyncio.run(server._close(gateway))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "the engine does not close" in done.stdout


def test_turned_away_callers_knock_again_and_those_in_the_queue_are_taken() -> None:
    """What the kernel has accepted is not lost; nobody new gets in; in the end they are refused."""
    with listen_on("http_port", "127.0.0.1", 0) as listening:
        address = listening.getsockname()
        with socket.create_connection(address) as queued:
            turn_away(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            listening.setblocking(True)
            taken, _ = listening.accept()
            with taken:
                taken.sendall(b"hello")
                assert queued.recv(5) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_a_taken_port_stops_the_start_by_name() -> None:
    """The message names the setting and the address."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = rf"http_port .*127\.0\.0\.1:{port}"
        with pytest.raises(SettingsError, match=taken), listen_on("http_port", "127.0.0.1", port):
            pass


def test_an_address_of_another_machine_stops_the_start_by_name() -> None:
    """A host that cannot be resolved or bound is named, not its stack trace."""
    with pytest.raises(SettingsError, match="admin_host"), listen_on("admin_port", "no.such.host.invalid", 0):
        pass
