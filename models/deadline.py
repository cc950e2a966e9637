"""One value that carries the caller's latency budget through every step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """A point on the monotonic clock, in seconds. Order is urgency: the smaller is due first."""

    at: float

    @classmethod
    def after(cls, milliseconds: float) -> Self:
        """The point that many milliseconds from now."""
        return cls(time.monotonic() + milliseconds / 1000.0)

    @classmethod
    def never(cls) -> Self:
        """No deadline: offline scoring and canaries."""
        return cls(float("inf"))

    @property
    def expired(self) -> bool:
        """Whether the point has passed."""
        return time.monotonic() >= self.at

    def remaining(self) -> float:
        """Seconds left, never negative; infinite when there is no deadline."""
        return max(0.0, self.at - time.monotonic())

    def within(self, seconds: float, share: float = 1.0) -> Deadline:
        """The deadline of one stage: that many seconds from now, at most this share of what is left, never later."""
        now = time.monotonic()
        return Deadline(min(self.at, now + min(seconds, max(0.0, self.at - now) * share)))

    def before(self, seconds: float) -> Deadline:
        """That much earlier: what comes after the stage needs time too."""
        return Deadline(self.at - seconds)
