"""How many tokens a second the engine finishes while it has work, measured from requests that came back. Pure."""

from __future__ import annotations

from typing import Final

from service.admission.fading import Fading

HALF_LIFE: Final = 1.0  # seconds of busy time; a new speed is believed by half after so long


class Meter:
    """Tokens finished over time busy, both fading with busy time: an idle night does not blur the estimate.

    All that the host does beside the engine while requests are under way is in it too, which is what a prediction
    needs. Batching engines finish more a second when more is under way: the estimate follows within a second or two.
    """

    def __init__(self) -> None:
        self._sums = Fading(2, HALF_LIFE, 0.0)  # tokens, seconds; on a clock that runs while the engine is busy
        self._busy = 0.0
        self._since: float | None = None

    @property
    def rate(self) -> float | None:
        """Tokens a second; None until the first request came back."""
        tokens, seconds = self._sums.read(self._busy)
        return tokens / seconds if seconds > 0 else None

    @property
    def since(self) -> float | None:
        """When the last request came back, or when an idle engine got its first; None while it is idle."""
        return self._since

    def began(self, now: float) -> None:
        """A request went in."""
        if self._since is None:
            self._since = now

    def ended(self, tokens: float, now: float, *, idle: bool) -> None:
        """A request came back, with so many tokens computed; `idle` when none is left.

        One without any (abandoned, or the engine hung) says nothing about how fast the engine is when it works.
        """
        if self._since is not None and now > self._since and tokens > 0:
            self._busy += now - self._since
            self._sums.add(self._busy, tokens, now - self._since)
        self._since = None if idle else now
