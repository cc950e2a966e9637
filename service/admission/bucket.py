"""A token bucket that may run into debt. Pure; the caller brings the clock."""

from __future__ import annotations

from typing import Final

_ROUNDING: Final = 1e-9


class Bucket:
    """Refills at `rate` a second up to `burst`; is open while at least one is left.

    A charge is taken whole and may leave a debt, so that a single large request passes, once, and is paid for after.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until it is open; 0 when it is."""
        level = self._refill(now)
        return 0.0 if level >= 1.0 - _ROUNDING else (1.0 - level) / self.rate

    def charge(self, amount: float, now: float) -> None:
        """Take an amount, open or not."""
        self._level = self._refill(now) - amount

    def change(self, rate: float, burst: float, now: float) -> None:
        """Go on with other numbers from what is left, or owed."""
        self._refill(now)
        self.rate = rate
        self.burst = burst

    def _refill(self, now: float) -> float:
        self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = now
        return self._level
