"""Several workers behind one port, as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from models.engines.onnx.cores import cores
from service.health import Check
from service.server import Stop
from service.settings import Settings
from service.sockets import listen_on, open_ports
from service.worker import share_of
from service.workers import Crew
from tests.service.processes import PATIENCE_SECONDS, Service, eventually, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY: dict[str, Any] = {"query": "mouse", "items": [{"id": "a", "title": "usb mouse"}, {"id": "b", "title": "lamp"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where graphs are built once for all tests here."""
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def crew(folder: Path) -> Iterator[Service]:
    """Two workers, both ready, and again after each test that uses them."""
    with serving(folder, workers=2, deadline_ms=60_000) as service:
        yield service
        assert service.end() == 0


@pytest.fixture
def last(folder: Path) -> Iterator[Service]:
    """Two workers for a test that ends them."""
    with serving(folder, workers=2, deadline_ms=60_000) as service:
        yield service


def workers_of(service: Service) -> dict[str, int]:
    """Process ids by worker."""
    checks = httpx.get(f"{service.admin}/livez").json()["checks"]
    return {check["name"]: int(check["detail"].split()[-1]) for check in checks}


def score(service: Service, times: int) -> list[int]:
    """Statuses of calls on a connection each."""
    return [httpx.post(f"{service.http}/v1/score", json=BODY, timeout=60).status_code for _ in range(times)]


def test_a_killed_worker_is_replaced_and_the_other_one_serves_on(crew: Service) -> None:
    """No call on a new connection fails, no sum of the metrics falls, and both are ready again."""
    assert score(crew, 20) == [200] * 20
    counted = crew.total("tierwise_requests_total")
    assert counted >= 20
    before = workers_of(crew)
    os.kill(before["worker-0"], signal.SIGKILL)
    assert score(crew, 20) == [200] * 20
    assert crew.total("tierwise_requests_total") >= counted
    eventually(crew.ready)
    after = workers_of(crew)
    assert after["worker-1"] == before["worker-1"]
    assert after["worker-0"] != before["worker-0"]
    assert score(crew, 4) == [200] * 4
    ready = {name: value for name, value in crew.metrics().items() if name.startswith("tierwise_ready")}
    assert ready == {'tierwise_ready{worker="0"}': 1.0, 'tierwise_ready{worker="1"}': 1.0}


def test_a_worker_that_stands_still_is_killed_and_replaced(crew: Service) -> None:
    """A process that does not answer its parent is of no use to callers; the report names it meanwhile."""
    stopped = workers_of(crew)["worker-1"]
    os.kill(stopped, signal.SIGSTOP)
    eventually(lambda: "does not answer" in crew.readiness().text)
    assert crew.readiness().status_code == 200
    eventually(lambda: workers_of(crew).get("worker-1", stopped) != stopped)
    eventually(crew.ready)
    assert crew.logged("killing a worker")


def test_sigterm_drains_every_worker(last: Service) -> None:
    """Calls in flight at SIGTERM are answered by whichever worker has them, and all processes end."""
    pids = workers_of(last).values()
    item = {"title": "a wireless optical mouse " * 4}
    body = {"query": "mouse", "items": [{"id": str(n), **item} for n in range(64)]}

    async def drain() -> list[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=last.http, timeout=60, limits=limits) as client:
            calls = [asyncio.create_task(client.post("/v1/score", json=body)) for _ in range(12)]
            await asyncio.sleep(0.3)
            last.process.send_signal(signal.SIGTERM)
            return [response.status_code for response in await asyncio.gather(*calls)]

    assert asyncio.run(drain()) == [200] * 12
    assert last.process.wait(PATIENCE_SECONDS) == 0
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_end_with_their_parent(last: Service) -> None:
    """A parent that is killed leaves nobody behind who holds the ports."""
    pids = list(workers_of(last).values())
    last.process.kill()

    def gone() -> bool:
        return not any(is_running(pid) for pid in pids)

    eventually(gone)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody has looked after."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 # a path is no clearer here
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_keeps_a_worker_from_starting_stops_the_whole_start(folder: Path, tmp_path: Path) -> None:
    """One reason, exit status 2, no endless restarts."""
    command = [sys.executable, "-m", "service", "serve", "--workers", "2", "--checkpoint", str(tmp_path)]
    environment = {**os.environ, **{f"TIERWISE_{door}_PORT": "0" for door in ("HTTP", "GRPC", "ADMIN")}}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 2
    assert "tierwise.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_threads_are_divided_on_purpose() -> None:
    """All workers together have the threads of one service; none is left without."""
    assert share_of(Settings(workers=4, threads=8)).threads == 2
    assert share_of(Settings(workers=4, threads=2)).threads == 1
    assert share_of(Settings(workers=1)).threads == cores()
    assert share_of(Settings(workers=4, threads=8, engine="vllm-server")).threads == 8


async def test_the_crew_shows_each_worker_s_adapters() -> None:
    """One that a worker refuses is named with the worker and takes nobody's readiness away."""
    with contextlib.ExitStack() as held:
        ports = held.enter_context(open_ports(Settings(http_port=0, grpc_port=0, admin_port=0)))
        inner = held.enter_context(listen_on("admin_port", "127.0.0.1", 0))
        async with httpx.AsyncClient() as client:
            crew = Crew(Settings(), ports, [inner], Stop(), client)
    crew.workers[0].report = {
        "ok": True,
        "checks": [{"name": "self-test", "ok": True, "detail": ""}],
        "judges": [{"name": "toys", "ok": False, "detail": "canary"}, {"name": "garden", "ok": True, "detail": ""}],
    }
    report = crew.readiness()
    assert report.ok
    assert report.judges == (
        Check("worker-0: toys", ok=False, detail="canary"),
        Check("worker-0: garden", ok=True, detail=""),
    )
    assert not crew.workers[0].wrong  # a restart would not mend it
