"""The self-test of one judge: known pairs through the live engine every few seconds, and what they have shown so far.

One wrong answer takes trust away at once. No answer counts only several times in a row, and not while steps advance:
then the engine is busy. Good probes in a row bring both back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from models.deadline import Deadline
from models.errors import EngineError
from service.canary import Probe, probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.pipeline import Judge
    from service.settings import HealthSettings

log = logging.getLogger(__name__)


class SelfTest:
    """Probes one judge. `watch` runs as long as the process.

    Args:
        judge: whose canaries are sent.
        settings: when probes are sent, and how many count.
        trust: told after each probe that was answered whether it was answered rightly.
        base: what an adapter lies over; its canaries must come out otherwise there, else they prove nothing.

    Attributes:
        tested: set once known pairs score right for the first time.
        concluded: set once a probe was answered, rightly or wrongly.
        looked: whether a probe has ended, whatever came of it.
        untrusted: why its scores must not go out; empty when they may.
        silent: why it is taken for one that does not answer; empty when it answers.
    """

    def __init__(
        self,
        judge: Judge,
        settings: HealthSettings,
        trust: Callable[[bool], None] | None = None,
        *,
        base: Judge | None = None,
    ) -> None:
        self.judge = judge
        self.tested = asyncio.Event()
        self.concluded = asyncio.Event()
        self.looked = False
        self.untrusted = "the engine is starting"
        self.silent = ""
        self._settings = settings
        self._trust = trust or (lambda _: None)
        # Other labels are other numbers: there is nothing to compare.
        self._base = base if base and base.manifest.label_token_ids == judge.manifest.label_token_ids else None
        self._misses = self._hits = 0  # probes in a row
        self._wrong = 0
        self._proved = time.monotonic()

    @property
    def name(self) -> str:
        """What requests call the judge."""
        return self.judge.manifest.name

    @property
    def verdict(self) -> str:
        """What the canaries have shown last, in one sentence."""
        if self.untrusted:
            return self.untrusted
        count = len(self.judge.manifest.canaries)
        return f"{count} of {count} canaries scored right {time.monotonic() - self._proved:.0f} s ago"

    def take_over(self, judge: Judge, trust: Callable[[bool], None] | None) -> None:
        """From now on this judge is watched; its canaries were right a moment ago."""
        self.judge, self._trust = judge, trust or (lambda _: None)
        self.untrusted = self.silent = ""
        self._misses = self._hits = 0
        self._wrong = judge.engine.health().wrong
        self._proved = time.monotonic()

    async def watch(self) -> None:
        """Start the engine, then probe until cancelled.

        Raises:
            CheckpointError: the engine cannot serve this checkpoint; the start must stop.
        """
        while True:
            await self.probe()
            steady = self.tested.is_set() and not (self.untrusted or self.silent or self._misses)
            await asyncio.sleep(self._settings.probe_seconds if steady else self._settings.retry_seconds)

    async def probe(self) -> None:
        """Send the canaries once and take note.

        Raises:
            CheckpointError: the engine cannot serve this checkpoint.
        """
        judge = self.judge
        before = judge.engine.health().steps
        try:
            if not self.tested.is_set():
                await judge.engine.warm_up()  # may take minutes; nobody is served meanwhile
            found = await self._ask(judge)
        except EngineError as error:
            found = Probe(silent=f"the engine does not answer: {error}")
        if judge is self.judge:  # what is found of an earlier one says nothing of this one
            self._note(found, busy=judge.engine.health().steps != before)
        self.looked = True

    async def _ask(self, judge: Judge) -> Probe:
        limit = self._settings.probe_timeout_seconds * 1000.0
        found = await probe(judge, Deadline.after(limit))
        if self._base is None or not found.right:
            return found
        without = await probe(replace(judge, engine=self._base.engine), Deadline.after(limit))
        if without.right:
            return Probe(
                wrong=("its canaries come out right without it too: record a pair that the base answers otherwise",)
            )
        if not without.wrong:
            return without
        self._base = None  # they can tell; that is looked at once
        return found

    def doubt(self) -> None:
        """What it lies over answers wrongly: nothing that was scored since its last good probe is kept."""
        self._trust(False)

    def heed(self) -> None:
        """Doubt it when the engine says that it found out by itself; by now it may be right again without a probe."""
        wrong = self.judge.engine.health().wrong
        if wrong > self._wrong:
            self.doubt()
        self._wrong = wrong

    def lose(self, detail: str) -> None:
        """It does not answer."""
        if not self.silent and self.tested.is_set():
            log.error("not ready: %s", detail, extra=self._fields)
        self.silent, self._hits = detail, 0

    def _note(self, found: Probe, *, busy: bool) -> None:
        if found.wrong:
            self.concluded.set()
            self._hits = self._misses = 0
            self.untrusted = "; ".join(found.wrong)
            self._trust(False)
            log.error("not ready: %s", self.untrusted, extra=self._fields)
        elif found.right:
            self.concluded.set()
            self._hits, self._misses = self._hits + 1, 0
            self._proved = time.monotonic()
            self.heed()
            self._trust(True)
            self._recover()
        elif not self.tested.is_set():
            self.untrusted = found.silent
            log.error("not ready: %s", found.silent, extra=self._fields)
        elif not busy:
            self._hits, self._misses = 0, self._misses + 1
            if self._misses >= self._settings.failures:
                self.lose(f"{self._misses} probes in a row without an answer: {found.silent}")

    def _recover(self) -> None:
        """A probe was right: the first one makes ready, later ones make ready again when there are enough in a row."""
        lost = bool(self.untrusted or self.silent)
        if lost and (not self.tested.is_set() or self._hits >= self._settings.recoveries):
            self.untrusted = self.silent = ""
            self.tested.set()
            count = len(self.judge.manifest.canaries)
            log.info("ready: %d of %d canaries score right", count, count, extra=self._fields)

    @property
    def _fields(self) -> dict[str, dict[str, str]]:
        """For the log line."""
        return {"fields": {"model": self.name}}
