"""Sums that fade: half of what was added counts after a half-life. Pure; the caller brings the clock."""

from __future__ import annotations


class Fading:
    """Several sums that fade together."""

    __slots__ = ("_at", "_half_life", "_sums")

    def __init__(self, count: int, half_life: float, now: float) -> None:
        self._sums = [0.0] * count
        self._half_life = half_life
        self._at = now

    def add(self, now: float, *amounts: float) -> None:
        """Add to each."""
        self._fade(now)
        for n, amount in enumerate(amounts):
            self._sums[n] += amount

    def read(self, now: float) -> list[float]:
        """The sums as they stand now."""
        self._fade(now)
        return self._sums

    def _fade(self, now: float) -> None:
        if now > self._at:
            left = 0.5 ** ((now - self._at) / self._half_life)
            self._sums = [s * left for s in self._sums]
            self._at = now
