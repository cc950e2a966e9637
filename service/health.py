"""Health: live means this process makes progress, ready means known pairs score right. Busy is not dead.

Evidence comes from the engine's step counter, which real traffic moves, and from probes: the checkpoint's canaries
through the live engine, every few seconds. One wrong answer ends readiness and scoring at once. No answer ends
readiness after several in a row, and not while steps advance: then the engine is busy. Good probes in a row bring it
back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.deadline import Deadline
from models.errors import EngineError
from service.canary import Probe, probe
from service.errors import NotReadyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from service.pipeline import Judge
    from service.settings import HealthSettings

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
    """Watches the event loop, the engine's heartbeat and the canaries. `watch` runs as long as the process.

    `trust` is told after each probe that was answered whether it was answered rightly.
    """

    def __init__(
        self,
        judge: Judge,
        settings: HealthSettings,
        *,
        embedded: bool,
        trust: Callable[[bool], None] | None = None,
    ) -> None:
        self._judge = judge
        self._settings = settings
        self._embedded = embedded
        self._trust = trust or (lambda _: None)
        self.tested = asyncio.Event()  # set once known pairs score right for the first time
        self.concluded = asyncio.Event()  # set once a probe was answered, rightly or wrongly
        self._untrusted = "the engine is starting"  # why its scores must not go out; empty when they may
        self._silent = ""  # why it is taken for one that does not answer; empty when it answers
        self._misses = self._hits = 0  # probes in a row
        self._draining = False
        self._ticked = self._advanced = self._proved = time.monotonic()
        self._steps = -1
        self._lag = 0.0

    def take_over(self, judge: Judge, trust: Callable[[bool], None] | None) -> None:
        """From now on this judge is watched; its canaries were right a moment ago."""
        self._judge, self._trust = judge, trust or (lambda _: None)
        self._untrusted = self._silent = ""
        self._misses = self._hits = 0
        self._advanced = self._proved = time.monotonic()
        self._steps = -1

    def drain(self) -> None:
        """Not ready from now on: the process is about to end."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether the process is about to end."""
        return self._draining

    def check_tested(self) -> None:
        """Refuse to score while known pairs do not score right: a wrong score must not look like an answer.

        Raises:
            NotReadyError: saying what the probe found.
        """
        if self._untrusted:
            raise NotReadyError(f"self-test: {self._untrusted}", retry_after_ms=1000)

    @property
    def wrong(self) -> bool:
        """Whether a canary was answered wrongly, and not often enough rightly since."""
        return self.concluded.is_set() and bool(self._untrusted)

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
            checks.append(self._pulse())
        return _report(checks)

    def readiness(self) -> HealthReport:
        """Whether this process should get traffic."""
        drain = Check("drain", not self._draining, "shutting down" if self._draining else "taking requests")
        pulse = self._pulse()
        engine = Check("engine", ok=False, detail=self._silent) if pulse.ok and self._silent else pulse
        return _report([drain, self._self_test(), engine])

    async def changes(self) -> AsyncIterator[bool]:
        """Readiness now, and again whenever it is another; for doors that tell their callers. Never ends."""
        told = None
        while True:
            if (ready := self.readiness().ok) is not told:
                told = ready
                yield ready
            await asyncio.sleep(TICK_SECONDS)

    async def watch(self) -> None:
        """Start the engine, probe it and tick, until cancelled.

        Raises:
            CheckpointError: the engine cannot serve this checkpoint; the start must stop.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick(), name="health-tick")
            tasks.create_task(self._probe_forever(), name="probe")

    async def probe(self) -> None:
        """Send the canaries once and take note.

        Raises:
            CheckpointError: the engine cannot serve this checkpoint.
        """
        judge = self._judge
        before = judge.engine.health().steps
        try:
            if not self.tested.is_set():
                await judge.engine.warm_up()  # may take minutes; nobody is served meanwhile
            found = await probe(judge, Deadline.after(self._settings.probe_timeout_seconds * 1000.0))
        except EngineError as error:
            found = Probe(silent=f"the engine does not answer: {error}")
        if judge is self._judge:  # what is found of an earlier one says nothing of this one
            self._note(found, busy=judge.engine.health().steps != before)

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self._ticked = time.monotonic()
            self._lag = max(0.0, self._ticked - due)
            health = self._judge.engine.health()
            if health.steps != self._steps or health.queued_tokens == 0:
                self._steps, self._advanced = health.steps, self._ticked
            if not (pulse := self._pulse()).ok:
                self._lose(pulse.detail)

    async def _probe_forever(self) -> None:
        while True:
            await self.probe()
            steady = self.tested.is_set() and not (self._untrusted or self._silent or self._misses)
            await asyncio.sleep(self._settings.probe_seconds if steady else self._settings.retry_seconds)

    def _note(self, found: Probe, *, busy: bool) -> None:
        if found.wrong:
            self.concluded.set()
            self._hits = self._misses = 0
            self._untrusted = "; ".join(found.wrong)
            self._trust(False)
            log.error("not ready: %s", self._untrusted)
        elif found.right:
            self.concluded.set()
            self._hits, self._misses = self._hits + 1, 0
            self._proved = time.monotonic()
            self._trust(True)
            self._recover()
        elif not self.tested.is_set():
            self._untrusted = found.silent
            log.error("not ready: %s", found.silent)
        elif not busy:
            self._hits, self._misses = 0, self._misses + 1
            if self._misses >= self._settings.failures:
                self._lose(f"{self._misses} probes in a row without an answer: {found.silent}")

    def _recover(self) -> None:
        """A probe was right: the first one makes ready, later ones make ready again when there are enough in a row."""
        lost = bool(self._untrusted or self._silent)
        if lost and (not self.tested.is_set() or self._hits >= self._settings.recoveries):
            self._untrusted = self._silent = ""
            self.tested.set()
            count = len(self._judge.manifest.canaries)
            log.info("ready: %d of %d canaries score right", count, count)

    def _lose(self, detail: str) -> None:
        if not self._silent and self.tested.is_set():
            log.error("not ready: %s", detail)
        self._silent, self._hits = detail, 0

    def _self_test(self) -> Check:
        if self._untrusted:
            return Check("self-test", ok=False, detail=self._untrusted)
        count = len(self._judge.manifest.canaries)
        age = time.monotonic() - self._proved
        return Check("self-test", ok=True, detail=f"{count} of {count} canaries scored right {age:.0f} s ago")

    def _pulse(self) -> Check:
        """What the engine says of itself, and whether work waits without a step."""
        health = self._judge.engine.health()
        stuck = time.monotonic() - self._advanced
        if health.alive and stuck > self._settings.hang_seconds:
            detail = f"hung: {health.queued_tokens} tokens queued and no step for {stuck:.0f} s"
            return Check("engine", ok=False, detail=detail)
        return Check("engine", health.alive, health.detail)


def _report(checks: list[Check]) -> HealthReport:
    return HealthReport(ok=all(c.ok for c in checks), checks=tuple(checks))
