"""Real services in processes of their own: `tierwise serve` on the shipped checkpoint, and their logs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_SECONDS = 150.0  # nothing here waits longer; a busy machine needs some of it


@dataclass
class Service:
    """A running service.

    Attributes:
        http: address of its HTTP door.
        grpc: address of its gRPC door.
        admin: address of its admin door.
        lines: its log so far, without the lines of single requests.
        requests: how many of those there were, by path and status (gRPC's by its name).
    """

    process: subprocess.Popen[str]
    http: str = ""
    grpc: str = ""
    admin: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    requests: Counter[tuple[str, int | str]] = field(default_factory=Counter)

    def readiness(self) -> httpx.Response:
        """The admin door's report."""
        return httpx.get(f"{self.admin}/readyz", timeout=PATIENCE_SECONDS)

    def ready(self) -> bool:
        """Every check is good."""
        response = self.readiness()
        return response.status_code == httpx.codes.OK and all(c["ok"] for c in response.json()["checks"])

    def metrics(self) -> dict[str, float]:
        """Every sample of one scrape, by its name with labels."""
        text = httpx.get(f"{self.admin}/metrics", timeout=PATIENCE_SECONDS).text
        samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def total(self, name: str) -> float:
        """Sum of a metric over all its labels."""
        return sum(value for sample, value in self.metrics().items() if sample.partition("{")[0] == name)

    def logged(self, message: str) -> bool:
        """Whether a line begins so."""
        return any(line["message"].startswith(message) for line in self.lines)

    def end(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


@contextmanager
def serving(folder: Path, **settings: object) -> Iterator[Service]:
    """`tierwise serve` with these settings, ready; killed in the end if it still runs.

    Args:
        folder: where it runs and keeps its graphs.
        settings: by name; a group as a dict.
    """
    chosen = {"cache_dir": folder, "http_port": 0, "grpc_port": 0, "admin_port": 0, **settings}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIERWISE_")}
    for name, value in chosen.items():
        clean[f"TIERWISE_{name.upper()}"] = (
            value if isinstance(value, str) else json.dumps(value, default=str).strip('"')
        )
    command = [sys.executable, "-m", "service", "serve"]
    with subprocess.Popen(command, cwd=folder, env=clean, stdout=subprocess.PIPE, text=True) as process:
        service = Service(process)
        reading = threading.Thread(target=_read, args=(service,), daemon=True)
        reading.start()
        try:
            eventually(lambda: bool(service.http) or process.poll() is not None)
            assert service.http, f"the service ended with {process.returncode}"
            eventually(service.ready)
            yield service
        finally:
            process.kill()
            process.wait()
            reading.join(PATIENCE_SECONDS)


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> float:
    """Wait until the condition holds; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it never came"
        time.sleep(0.05)
    return time.monotonic() - began


def _read(service: Service) -> None:
    assert service.process.stdout is not None
    for text in service.process.stdout:
        line = json.loads(text)
        if line["message"] == "listening" and not service.http:
            service.admin, service.http, service.grpc = line["admin"], line["http"], line["grpc"]
        if line["message"] == "request":
            service.requests[line["path"], line.get("grpc", line["status"])] += 1
        else:
            service.lines.append(line)
