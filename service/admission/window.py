"""Sums over the last moments, all of which count alike; what is older counts for nothing. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

SLOTS: Final = 8  # a window moves in steps of one slot


class Window:
    """Several sums over the last `seconds`."""

    __slots__ = ("_count", "_slot", "_slots")

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._slot = seconds / SLOTS
        self._slots: deque[tuple[int, list[float]]] = deque()  # number of the slot, its sums; oldest first

    def add(self, now: float, *amounts: float) -> None:
        """Add to each."""
        number = int(now / self._slot)
        if not self._slots or self._slots[-1][0] < number:
            self._slots.append((number, [0.0] * self._count))
        sums = self._slots[-1][1]
        for n, amount in enumerate(amounts):
            sums[n] += amount

    def read(self, now: float) -> list[float]:
        """The sums as they stand now."""
        oldest = int(now / self._slot) - SLOTS
        while self._slots and self._slots[0][0] <= oldest:
            self._slots.popleft()
        return [sum(sums[n] for _, sums in self._slots) for n in range(self._count)]
