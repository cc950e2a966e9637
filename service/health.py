"""Health: live means this process makes progress, ready means the known pairs score right. Busy is not dead."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.errors import EngineError
from service.canary import failing_canaries
from service.errors import NotReadyError

if TYPE_CHECKING:
    from models.engines.port import Engine
    from service.pipeline import Judge

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
LATE_TICKS = 40  # ten seconds without a tick, and still answering: the ticking task is gone


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class HealthReport:
    """Every check; `ok` is false when one fails."""

    ok: bool
    checks: tuple[Check, ...]

    @property
    def failing(self) -> str:
        """The failing checks in one sentence."""
        return "; ".join(f"{c.name}: {c.detail}" for c in self.checks if not c.ok)


class Health:
    """Watches the event loop, the engine's heartbeat and the self-test. `watch` runs as long as the process."""

    def __init__(self, judge: Judge, *, embedded: bool, hang_seconds: float, retry_seconds: float) -> None:
        self._judge = judge
        self._embedded = embedded
        self._hang = hang_seconds
        self._retry = retry_seconds
        self._self_test = Check("self-test", ok=False, detail="the engine is starting")
        self.tested = asyncio.Event()  # set once known pairs score right
        self._draining = False
        self._ticked = self._advanced = time.monotonic()
        self._steps = -1
        self._lag = 0.0

    def drain(self) -> None:
        """Not ready from now on: the process is about to end."""
        self._draining = True

    def check_tested(self) -> None:
        """Refuse to score before known pairs score right: a wrong score must not look like an answer.

        Raises:
            NotReadyError: saying what the self-test found.
        """
        if not self.tested.is_set():
            raise NotReadyError(f"self-test: {self._self_test.detail}", retry_after_ms=1000)

    @property
    def loop_lag(self) -> float:
        """Seconds by which the event loop's last tick was late."""
        return self._lag

    def liveness(self) -> HealthReport:
        """Whether a restart would help. An engine elsewhere does not count: restarting this process cannot mend it."""
        age = time.monotonic() - self._ticked
        checks = [
            Check("event-loop", age < LATE_TICKS * TICK_SECONDS, f"last tick {age:.2f} s ago, {self._lag:.3f} s late")
        ]
        if self._embedded:
            checks.append(self._engine())
        return _report(checks)

    def readiness(self) -> HealthReport:
        """Whether this process should get traffic."""
        drain = Check("drain", not self._draining, "shutting down" if self._draining else "taking requests")
        return _report([drain, self._self_test, self._engine()])

    async def watch(self) -> None:
        """Start the engine, run the self-test until it passes, and tick until cancelled.

        Raises:
            CheckpointError: the engine cannot serve this checkpoint; the start must stop.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick(), name="health-tick")
            tasks.create_task(self._pass_self_test(), name="self-test")

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self._ticked = time.monotonic()
            self._lag = max(0.0, self._ticked - due)
            health = self._judge.engine.health()
            if health.steps != self._steps or health.queued_tokens == 0:
                self._steps, self._advanced = health.steps, self._ticked

    async def _pass_self_test(self) -> None:
        while not self._self_test.ok:
            self._self_test = await self._run_self_test()
            if self._self_test.ok:
                self.tested.set()
                log.info("ready: %s", self._self_test.detail)
            else:
                log.error("not ready: %s", self._self_test.detail)
                await asyncio.sleep(self._retry)

    async def _run_self_test(self) -> Check:
        try:
            await self._judge.engine.warm_up()
            problems = await failing_canaries(self._judge)
        except EngineError as error:
            return Check("self-test", ok=False, detail=f"the engine does not answer: {error}")
        if problems:
            return Check("self-test", ok=False, detail="; ".join(problems))
        count = len(self._judge.manifest.canaries)
        return Check("self-test", ok=True, detail=f"{count} of {count} canaries score right")

    def _engine(self) -> Check:
        engine: Engine = self._judge.engine
        health = engine.health()
        stuck = time.monotonic() - self._advanced
        if health.alive and stuck > self._hang:
            detail = f"hung: {health.queued_tokens} tokens queued and no step for {stuck:.0f} s"
            return Check("engine", ok=False, detail=detail)
        return Check("engine", health.alive, health.detail)


def _report(checks: list[Check]) -> HealthReport:
    return HealthReport(ok=all(c.ok for c in checks), checks=tuple(checks))
