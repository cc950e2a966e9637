"""Several workers behind one port: a parent that starts them, watches them, replaces them and ends them in order.

Workers take connections off one listening socket, which the parent holds: what waits there when a worker dies is taken
by the next. Each has an engine of its own with its share of the threads. The parent asks each worker's own admin door
how it is, as Kubernetes would, and answers at the admin port for all of them. It loads no engine and serves no caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx

from service.access.authenticate import open_access
from service.engines import EMBEDDED
from service.health import Check, HealthReport
from service.http.admin import create_overview
from service.http.door import HttpDoor, address_of
from service.merge import Totals
from service.server import CLOSE_SECONDS, Stop
from service.settings import SettingsError
from service.sockets import listen_on, open_ports, turn_away
from service.worker import CANNOT_START, work

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from prometheus_client import CollectorRegistry

    from service.settings import Settings
    from service.sockets import Ports

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
ANSWER_SECONDS = 2.0  # for a worker's answer to the parent
RELOAD_SECONDS = 600.0  # for a worker to build, load and check a checkpoint
FAILURES = 5  # polls in a row; liveness is damped already, and a busy machine may be slow to answer
SCRAPE_POLLS = 5  # between scrapes: what a worker that is killed has counted since its last one is lost
PAUSES = (0.25, 15.0)  # before a worker is replaced; doubles while workers do not last
STEADY_SECONDS = 60.0  # a worker that lasted so long ended by chance
END_SECONDS = CLOSE_SECONDS + 1.5  # beyond pause and drain, before a worker is killed


@dataclass(eq=False)
class Worker:
    """One place in the crew, and the process that has it now.

    Attributes:
        admin: loopback socket of its admin door, held by the parent, so that its address outlives the process.
        leash: closed when the parent ends, however it ends.
        answered: the process has been live.
        failures: polls in a row since then at which it was not.
        report: what it said about its readiness; None when it said nothing.
        scrape: its metrics, as it last gave them.
    """

    name: str
    admin: socket.socket
    process: SpawnProcess | None = None
    leash: Connection | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0
    report: dict[str, Any] | None = None
    scrape: str = ""

    @property
    def url(self) -> str:
        """Of its admin door."""
        return f"http://127.0.0.1:{self.admin.getsockname()[1]}"

    @property
    def check(self) -> Check:
        """Its readiness in one line."""
        if self.report is None:
            return Check(self.name, ok=False, detail="does not answer" if self.answered.is_set() else "starting")
        failing = "; ".join(f"{c['name']}: {c['detail']}" for c in self.report["checks"] if not c["ok"])
        return Check(self.name, ok=self.report["ok"], detail=failing or "ready")

    @property
    def judges(self) -> tuple[Check, ...]:
        """What it said about its adapters."""
        said = self.report["judges"] if self.report else ()
        return tuple(Check(f"{self.name}: {c['name']}", c["ok"], c["detail"]) for c in said)

    @property
    def wrong(self) -> bool:
        """Whether it is up and answers its canaries wrongly."""
        checks = self.report["checks"] if self.report and self.answered.is_set() else ()
        return any(c["name"] == "self-test" and not c["ok"] for c in checks)


async def supervise(settings: Settings) -> None:
    """Run `settings.workers` workers until SIGTERM or SIGINT.

    Raises:
        SettingsError: a port is taken, the keys cannot be read, or the first worker cannot start.
    """
    access = open_access(settings)
    stop = Stop()
    stop.on_signals(signal.SIGTERM, signal.SIGINT)
    with contextlib.ExitStack() as held:
        ports = held.enter_context(open_ports(settings))
        inner = [held.enter_context(listen_on("admin_port", "127.0.0.1", 0)) for _ in range(settings.workers)]
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as client:
            crew = Crew(settings, ports, inner, stop, client)
            door = HttpDoor("admin", create_overview(crew, access), ports.admin, settings)
            serving = asyncio.create_task(door.serve(), name="admin")
            log.info("listening", extra={"fields": _addresses(settings, ports) | {"admin": door.address}})
            try:
                await crew.run()
            finally:
                door.end()
                await serving


def _addresses(settings: Settings, ports: Ports) -> dict[str, object]:
    secure = "" if settings.tls.certificate is None else "s"
    http, grpc = address_of(ports.http, f"http{secure}"), address_of(ports.grpc, f"grpc{secure}")
    return {"workers": settings.workers, "http": http, "grpc": grpc}


class Crew:
    """The workers of one parent."""

    def __init__(
        self,
        settings: Settings,
        ports: Ports,
        inner: list[socket.socket],
        stop: Stop,
        client: httpx.AsyncClient,
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._stop = stop
        self._client = client
        self._totals = Totals()
        self.workers = [Worker(f"worker-{n}", admin) for n, admin in enumerate(inner)]

    def liveness(self) -> HealthReport:
        """The parent mends its workers itself; while it answers, a restart of all would not help."""
        running = (w for w in self.workers if w.process is not None)
        return HealthReport(
            ok=True,
            checks=tuple(Check(w.name, ok=True, detail=f"process {w.process.pid}") for w in running if w.process),
        )

    def readiness(self) -> HealthReport:
        """Ready while one worker is; a worker that is not takes no part of the traffic for long."""
        draining = self._stop.asked.is_set()
        drain = Check("drain", not draining, "shutting down" if draining else "taking requests")
        checks = [w.check for w in self.workers]
        judges = tuple(judge for worker in self.workers for judge in worker.judges)
        return HealthReport(ok=not draining and any(c.ok for c in checks), checks=(drain, *checks), judges=judges)

    async def metrics(self) -> CollectorRegistry:
        """Sums over workers, those that have ended included, and each one's gauges."""
        await asyncio.gather(*(self._scrape(worker) for worker in self.workers))
        return self._totals.merged({w.name.rpartition("-")[2]: w.scrape for w in self.workers})

    async def reload(self, headers: Mapping[str, str]) -> tuple[bool, object]:
        """One worker after the other, so that at most one holds two checkpoints."""
        passed = {name: headers[name] for name in ("authorization", "x-api-key") if name in headers}
        found: dict[str, object] = {}
        ok = True
        for worker in self.workers:
            try:
                answer = await self._client.post(f"{worker.url}/admin/reload", headers=passed, timeout=RELOAD_SECONDS)
            except httpx.HTTPError as error:
                ok, found[worker.name] = False, f"does not answer: {type(error).__name__}"
            else:
                ok, found[worker.name] = ok and answer.is_success, answer.json()
        return ok, found

    async def run(self) -> None:
        """Keep every place filled until asked to stop, then end all in order.

        Raises:
            SettingsError: the first worker could not start; it has said why.
        """
        polling = asyncio.gather(*(self._poll(worker) for worker in self.workers))
        try:
            async with asyncio.TaskGroup() as tasks:
                first, *others = self.workers
                tasks.create_task(self._keep(first, patient=False), name=first.name)
                tasks.create_task(self._end_when_asked(), name="end")
                up = [asyncio.create_task(event.wait()) for event in (first.answered, self._stop.asked)]
                await asyncio.wait(up, return_when=asyncio.FIRST_COMPLETED)  # what is wrong is said and built once
                for task in up:
                    task.cancel()
                for worker in others:
                    tasks.create_task(self._keep(worker, patient=True), name=worker.name)
        except* SettingsError as group:
            raise group.exceptions[0] from None
        finally:
            polling.cancel()

    async def _keep(self, worker: Worker, *, patient: bool) -> None:
        pause, most = PAUSES
        try:
            while not self._stop.asked.is_set():
                began = time.monotonic()
                self._start(worker, patient=patient)
                await worker.ended.wait()
                status = self._reap(worker)
                if self._stop.asked.is_set():
                    return
                if status == CANNOT_START and not any(w.answered.is_set() for w in self.workers):
                    raise SettingsError(f"{worker.name} could not start; its reason stands above")
                steady = time.monotonic() - began > STEADY_SECONDS
                pause = PAUSES[0] if steady else min(2 * pause, most)
                fields = {"worker": worker.name, "exit": status, "pause": pause}
                log.error("a worker ended; another takes its place", extra={"fields": fields})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.asked.wait(), pause)
                patient = True
        finally:
            if worker.process is not None:
                worker.process.kill()

    def _start(self, worker: Worker, *, patient: bool) -> None:
        context = multiprocessing.get_context("spawn")
        theirs, worker.leash = context.Pipe(duplex=False)
        worker.ended.clear()
        worker.answered.clear()
        worker.failures = 0
        arguments = (worker.name, self._settings, replace(self._ports, admin=worker.admin), theirs, patient)
        worker.process = context.Process(target=work, args=arguments, name=worker.name)
        worker.process.start()
        theirs.close()
        sentinel = worker.process.sentinel
        asyncio.get_running_loop().add_reader(sentinel, _note_end, worker, sentinel)

    def _reap(self, worker: Worker) -> int | None:
        """Forget the process; what it counted stays."""
        assert worker.process is not None  # noqa: S101 # it has ended
        worker.process.join()
        status = worker.process.exitcode
        worker.process.close()
        if worker.leash is not None:
            worker.leash.close()
        worker.process = worker.leash = worker.report = None
        self._totals.retire(worker.scrape)
        worker.scrape = ""
        return status

    async def _end_when_asked(self) -> None:
        """SIGTERM for all; those that take longer than they may are killed."""
        await self._stop.asked.wait()
        log.info("draining")
        self._signal(signal.SIGTERM)
        ended = asyncio.gather(*(w.ended.wait() for w in self.workers if w.process is not None))
        hurried = asyncio.create_task(self._stop.hurried.wait())
        either: set[asyncio.Future[Any]] = {ended, hurried}
        await asyncio.wait(either, timeout=self._settings.drain_pause_seconds, return_when=asyncio.FIRST_COMPLETED)
        turn_away(self._ports.http)
        limit = time.monotonic() + self._settings.drain_seconds + END_SECONDS
        await asyncio.wait(either, timeout=limit - time.monotonic(), return_when=asyncio.FIRST_COMPLETED)
        if hurried.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait([ended], timeout=max(0.0, limit - time.monotonic()))
        hurried.cancel()
        if not ended.done():
            log.error("workers do not end in time; killing them")
            self._signal(signal.SIGKILL)
            await ended

    def _signal(self, number: signal.Signals) -> None:
        for worker in self.workers:
            if worker.process is not None and worker.process.pid is not None and not worker.ended.is_set():
                os.kill(worker.process.pid, number)

    async def _poll(self, worker: Worker) -> None:
        for count in itertools.count(1):
            await self._look_at(worker)
            if count % SCRAPE_POLLS == 0:
                await self._scrape(worker)
            await asyncio.sleep(POLL_SECONDS)

    async def _look_at(self, worker: Worker) -> None:
        process = worker.process
        if process is None:
            return
        live, ready = await asyncio.gather(self._get(worker, "/livez"), self._get(worker, "/readyz"))
        if worker.process is not process:
            return
        worker.report = json.loads(ready.text) if ready is not None else None
        healthy = live is not None and live.status_code == HTTPStatus.OK
        if healthy:
            worker.answered.set()
        mendable = worker.wrong and self._settings.engine in EMBEDDED
        if not worker.answered.is_set() or (healthy and not mendable):
            worker.failures = 0
            return
        worker.failures += 1
        if worker.failures >= FAILURES and not worker.ended.is_set():
            fields = {"worker": worker.name, "live": live.text if live else None, "check": worker.check.detail}
            log.error("killing a worker that a restart may mend", extra={"fields": fields})
            process.kill()

    async def _scrape(self, worker: Worker) -> None:
        """A scrape that fails leaves the last one, so that no sum falls."""
        process = worker.process
        answer = await self._get(worker, "/metrics") if process is not None and worker.answered.is_set() else None
        if answer is not None and answer.status_code == HTTPStatus.OK and worker.process is process:
            worker.scrape = answer.text

    async def _get(self, worker: Worker, path: str) -> httpx.Response | None:
        try:
            return await self._client.get(worker.url + path)
        except httpx.HTTPError:
            return None


def _note_end(worker: Worker, sentinel: int) -> None:
    asyncio.get_running_loop().remove_reader(sentinel)
    worker.ended.set()
