"""Health: live means this process makes progress, ready means known pairs score right. Busy is not dead.

Evidence comes from the engine's step counter, which real traffic moves, and from probes (`service.selftest`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import NotReadyError
from service.selftest import SelfTest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from service.pipeline import Judge
    from service.settings import HealthSettings

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
    """Every check; `ok` is false when one fails.

    Attributes:
        judges: adapters, one check each, by the name that requests give as `model`. One that fails takes no requests,
            and nothing away from the others.
    """

    ok: bool
    checks: tuple[Check, ...]
    judges: tuple[Check, ...] = ()

    @property
    def failing(self) -> str:
        """The failing checks in one sentence."""
        return "; ".join(f"{c.name}: {c.detail}" for c in self.checks if not c.ok)


class Health:
    """Watches the event loop, the engine's heartbeat and every judge's canaries. `watch` runs as long as the process.

    The checkpoint's judge decides for the process: when its canaries come out wrong, so may everything that lies over
    its weights. An adapter's decide for the adapter alone.

    Args:
        judge: the checkpoint's.
        settings: when what is seen counts.
        embedded: whether a restart of this process restarts the engine.
        trust: told after each probe of it that was answered whether it was answered rightly.
        adapters: of the other judges.
    """

    def __init__(
        self,
        judge: Judge,
        settings: HealthSettings,
        *,
        embedded: bool,
        trust: Callable[[bool], None] | None = None,
        adapters: Iterable[SelfTest] = (),
    ) -> None:
        self._settings = settings
        self._embedded = embedded
        self._adapters = {test.name: test for test in adapters}
        self._base = SelfTest(judge, settings, self._told(trust))
        self._draining = False
        self._ticked = self._advanced = time.monotonic()
        self._steps = -1
        self._lag = 0.0

    def take_over(self, judge: Judge, trust: Callable[[bool], None] | None) -> None:
        """From now on this judge is watched; its canaries were right a moment ago."""
        self._base.take_over(judge, self._told(trust))
        self._advanced = time.monotonic()
        self._steps = -1

    @property
    def tested(self) -> asyncio.Event:
        """Set once known pairs score right for the first time."""
        return self._base.tested

    @property
    def concluded(self) -> asyncio.Event:
        """Set once a probe was answered, rightly or wrongly."""
        return self._base.concluded

    def drain(self) -> None:
        """Not ready from now on: the process is about to end."""
        self._draining = True

    @property
    def draining(self) -> bool:
        """Whether the process is about to end."""
        return self._draining

    def check_tested(self, name: str | None = None) -> None:
        """Refuse to score while known pairs do not score right: a wrong score must not look like an answer.

        Args:
            name: of an adapter that is asked; its canaries count as well as the checkpoint's.

        Raises:
            NotReadyError: saying what the probe found.
        """
        if self._base.untrusted:
            raise NotReadyError(f"self-test: {self._base.untrusted}", retry_after_ms=1000)
        test = self._adapters.get(name) if name is not None else None
        # A load balancer sees the checkpoint's silence; an adapter's is seen here alone.
        if test is not None and (problem := test.untrusted or test.silent):
            raise NotReadyError(f"model {test.name!r}: self-test: {problem}", retry_after_ms=1000)

    @property
    def wrong(self) -> bool:
        """Whether a canary was answered wrongly, and not often enough rightly since."""
        return self.concluded.is_set() and bool(self._base.untrusted)

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
        """Whether this process should get traffic; adapters may fail without that."""
        drain = Check("drain", not self._draining, "shutting down" if self._draining else "taking requests")
        pulse = self._pulse()
        engine = Check("engine", ok=False, detail=self._base.silent) if pulse.ok and self._base.silent else pulse
        return _report([drain, self._self_test(), engine], map(_judge, self._adapters.values()))

    async def changes(self) -> AsyncIterator[bool]:
        """Readiness now, and again whenever it is another; for doors that tell their callers. Never ends."""
        told = None
        while True:
            if (ready := self.readiness().ok) is not told:
                told = ready
                yield ready
            await asyncio.sleep(TICK_SECONDS)

    async def watch(self) -> None:
        """Start the engine, probe every judge and tick, until cancelled.

        Raises:
            CheckpointError: the engine cannot serve this checkpoint; the start must stop.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tick(), name="health-tick")
            for test in self._tests:
                tasks.create_task(test.watch(), name=f"probe {test.name}")

    async def probe(self) -> None:
        """Send every judge's canaries once and take note.

        Raises:
            CheckpointError: the engine cannot serve this checkpoint.
        """
        await asyncio.gather(*(test.probe() for test in self._tests))

    @property
    def _tests(self) -> tuple[SelfTest, ...]:
        return self._base, *self._adapters.values()

    def _told(self, trust: Callable[[bool], None] | None) -> Callable[[bool], None]:
        """What is told of the checkpoint's probes: its own cache, and those of what lies over it when it is wrong."""

        def tell(right: bool) -> None:  # noqa: FBT001 # as `trust` is called
            if trust is not None:
                trust(right)
            if not right:
                for test in self._adapters.values():
                    test.doubt()

        return tell

    async def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self._ticked = time.monotonic()
            self._lag = max(0.0, self._ticked - due)
            health = self._base.judge.engine.health()
            if health.steps != self._steps or health.queued_tokens == 0:
                self._steps, self._advanced = health.steps, self._ticked
            for test in self._tests:
                test.heed()
            if not (pulse := self._pulse()).ok:
                self._base.lose(pulse.detail)

    def _self_test(self) -> Check:
        if not self._base.untrusted and (coming := [t.name for t in self._adapters.values() if not t.looked]):
            return Check("self-test", ok=False, detail=f"not tested yet: {', '.join(coming)}")
        return Check("self-test", not self._base.untrusted, self._base.verdict)

    def _pulse(self) -> Check:
        """What the engine says of itself, and whether work waits without a step."""
        health = self._base.judge.engine.health()
        stuck = time.monotonic() - self._advanced
        if health.alive and stuck > self._settings.hang_seconds:
            detail = f"hung: {health.queued_tokens} tokens queued and no step for {stuck:.0f} s"
            return Check("engine", ok=False, detail=detail)
        return Check("engine", health.alive, health.detail)


def _judge(test: SelfTest) -> Check:
    """Whether requests that name an adapter are answered."""
    engine = test.judge.engine.health()
    problem = test.untrusted or test.silent or ("" if engine.alive else engine.detail)
    return Check(test.name, not problem, problem or test.verdict)


def _report(checks: list[Check], judges: Iterable[Check] = ()) -> HealthReport:
    return HealthReport(ok=all(c.ok for c in checks), checks=tuple(checks), judges=tuple(judges))
