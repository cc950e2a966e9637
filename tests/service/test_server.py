"""The service as a process: real sockets, real signals."""

from __future__ import annotations

import asyncio
import json
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
from service.sockets import listen_on

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
def running(checkpoint: Path) -> Iterator[Running]:
    """Start a service and wait until it is ready; kill it in the end if it still runs."""
    command = [sys.executable, "-m", "tests.service.door_process", str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
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
