"""`tierwise top` beside a real service."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.service.processes import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.service.processes import Service

BODY = {"query": "wireless mouse", "items": [{"id": "a", "title": "Logitech M185 wireless mouse"}]}


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on a wide terminal."""
    command = [sys.executable, "-m", "service", "top", *arguments]
    return subprocess.run(
        command, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A real service."""
    with serving(tmp_path_factory.mktemp("top")) as running:
        yield running


def test_a_look_at_a_real_service(service: Service) -> None:
    """Rates, percentiles, tiers, queue, cache and versions of what happens while it looks."""
    stop = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=service.http) as client:
            while not stop.wait(0.02):
                client.post("/v1/score", json=BODY).raise_for_status()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        done = top(service.admin, "--once", "--interval", "1.5")
    finally:
        stop.set()
        sender.join()
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert "ready" in done.stdout.splitlines()[0]
    assert "tierwise-mini@" in done.stdout
    assert "onnx-int8" in done.stdout
    assert float(rows["/v1/score"][1]) > 1
    assert float(rows["/v1/score"][2]) > 0
    for word in ("judge", "total", "recall", "memory", "brown-out", "forward passes", "4-Excellent"):
        assert word in done.stdout


def test_nobody_there_is_one_sentence(service: Service) -> None:
    """A wrong address, or one that serves something else, is named and not a traceback."""
    del service
    wrong = top("http://127.0.0.1:9", "--once")
    assert wrong.returncode == 1
    assert "http://127.0.0.1:9/metrics" in wrong.stderr
    assert "Traceback" not in wrong.stderr
