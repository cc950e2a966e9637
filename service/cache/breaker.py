"""A circuit breaker: what failed is left alone for a while, and tried again where nobody waits for it."""

from __future__ import annotations

import random
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

STEADY: Final = 10.0  # closed for so many pauses, it is well again and the next pause is the shortest


class BreakerState(StrEnum):
    """Whether to ask."""

    CLOSED = "closed"  # it works: ask
    OPEN = "open"  # it failed a moment ago: do not
    HALF_OPEN = "half-open"  # one probe may find out


class Breaker:
    """Opens on the first failure. Each failure soon after the last doubles the pause, within bounds, with jitter.

    Args:
        first_seconds: shortest pause.
        most_seconds: longest pause.
        open_at_first: begin open with a probe due at once: nothing is known yet.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        first_seconds: float = 0.1,
        most_seconds: float = 10.0,
        *,
        open_at_first: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.opened = 0  # times so far
        self._first, self._most = first_seconds, most_seconds
        self._clock = clock
        self._pause = 0.0
        self._closed_at = clock()
        self._until = clock() if open_at_first else None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """What it says now."""
        if self._until is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._probing or self._clock() >= self._until else BreakerState.OPEN

    @property
    def remaining(self) -> float:
        """Seconds until a probe may find out; 0 when it may now, or none is needed."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def take_probe(self) -> bool:
        """Whether the caller shall try now, without anybody waiting; at most one does at a time."""
        if self._probing or self.state is not BreakerState.HALF_OPEN:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """It works."""
        if self._until is not None:
            self._until, self._closed_at = None, self._clock()
        self._probing = False

    def failed(self) -> None:
        """It does not. Failures of calls that began before the first one was seen change nothing."""
        if self._until is not None and not self._probing:
            return
        now = self._clock()
        steady = self._until is None and now - self._closed_at > STEADY * self._pause
        self._pause = self._first if steady or not self._pause else min(self._most, 2.0 * self._pause)
        self._until = now + self._pause * random.uniform(0.8, 1.2)
        self._probing = False
        self.opened += 1
