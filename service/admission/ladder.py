"""The brown-out ladder: under pressure the service does less for each request before it refuses more of them. Pure.

Pressure is the share of recent requests that found no room. A step is taken as soon as the pressure is there and taken
back, one at a time, after the pressure has stayed below half of it for a while.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from service.admission.window import Window
from service.request import Priority

RECENT_SECONDS: Final = 0.8
HOLD_SECONDS: Final = 0.3  # a step stays at least so long
FEW: Final = 5.0  # requests; so many imagined ones that found room keep one refusal from being pressure


class Step(IntEnum):
    """What is done for a request, from everything to the least."""

    EVERYTHING = 0
    NO_RETRIEVAL = 1  # judged without a chunk
    CACHE_ONLY = 2  # when some of its items are cached, those and no others
    FIRST_ITEMS = 3  # only so many of its first items as leave room for others


STEPS: Final = {
    "none": Step.EVERYTHING,
    "retrieval": Step.NO_RETRIEVAL,
    "cache": Step.CACHE_ONLY,
    "items": Step.FIRST_ITEMS,
}
_FROM: Final = {Step.NO_RETRIEVAL: 0.05, Step.CACHE_ONLY: 0.2, Step.FIRST_ITEMS: 0.5}
_EARLIER: Final = {Priority.CRITICAL: -1, Priority.DEFAULT: 0, Priority.BATCH: 1}


class Ladder:
    """Where the service stands.

    Args:
        deepest: never go below.
    """

    def __init__(self, deepest: Step, now: float) -> None:
        self._deepest = deepest
        self._sums = Window(2, RECENT_SECONDS)  # asked, refused
        self._step = Step.EVERYTHING
        self._moved = self._asked = now

    def record(self, now: float, *, refused: bool) -> None:
        """One request found room, or did not."""
        self._sums.add(now, 1.0, float(refused))

    def pressure(self, now: float) -> float:
        """Share of recent requests that found no room, in [0, 1)."""
        asked, refused = self._sums.read(now)
        return refused / (asked + FEW)

    def step(self, now: float) -> Step:
        """The step in force."""
        pressure = self.pressure(now)
        while self._step < self._deepest and pressure >= _FROM[Step(self._step + 1)]:
            self._step = Step(self._step + 1)
            self._moved = now
        calm = pressure < _FROM.get(self._step, 0.0) / 2
        if calm and now - self._asked > RECENT_SECONDS:  # nobody was here: what was before is over
            self._step = Step.EVERYTHING
        elif calm and now - self._moved >= HOLD_SECONDS:
            self._step = Step(self._step - 1)
            self._moved = now
        self._asked = now
        return self._step

    def step_for(self, priority: Priority, now: float) -> Step:
        """The step for one request: once there is pressure, batch is a step ahead and critical a step behind."""
        step = self.step(now)
        if step is Step.EVERYTHING:
            return step
        return Step(min(self._deepest, step + _EARLIER[priority]))
