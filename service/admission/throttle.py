"""Refuses at the door, before a body is read, what would most likely be refused behind it. Pure but for its coin.

The adaptive throttling of Google's SRE book, chapter 21, put where the server pays least: of the callers of one tenant
and priority, so many are let in as were answered of late, and a third more to find out whether more would be.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from service.admission.fading import Fading

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

TRIES: Final = 1.3  # let in for each that was answered
FEW: Final = 3.0  # let in on top: a few requests, looked at closely, cost little
HALF_LIFE: Final = 0.5  # seconds
MOST_KEYS: Final = 10_000


class Throttle:
    """Asked and answered, by key."""

    def __init__(self, coin: Callable[[], float] = random.random) -> None:
        self._coin = coin
        self._kept: OrderedDict[Hashable, Fading] = OrderedDict()

    def refuses(self, key: Hashable, now: float) -> bool:
        """Whether to turn this one away."""
        asked, answered = self._sums(key, now).read(now)
        return self._coin() < (asked - TRIES * answered - FEW) / (asked + 1.0)

    def record(self, key: Hashable, now: float, *, let_in: bool) -> None:
        """One came. One that is let in counts as answered, until it is refused after all."""
        self._sums(key, now).add(now, 1.0, float(let_in))

    def refused(self, key: Hashable, now: float) -> None:
        """One that was let in was refused behind the door."""
        self._sums(key, now).add(now, 0.0, -1.0)

    def _sums(self, key: Hashable, now: float) -> Fading:
        sums = self._kept.get(key)
        if sums is None:
            sums = self._kept[key] = Fading(2, HALF_LIFE, now)
            if len(self._kept) > MOST_KEYS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return sums
