"""Fair share of the queue: when there is not room for all, a tenant holds at most its weighted part. Pure.

Requests of one deadline leave the queue in the order they came, so a tenant's part of the queue is its part of the
engine. A tenant counts while it asks, let in or not; one that asks for less than its part leaves the rest to others,
since below `CONTENDED` of the room nobody is held to a part.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENDED: Final = 0.5  # share of the room from which on tenants are held to their parts
SEEN_SECONDS: Final = 2.0  # a tenant counts for so long after it asked


class Fair:
    """Which tenants ask now, and what part of the queue each may hold."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._seen: OrderedDict[str, float] = OrderedDict()  # tenant -> last seen, oldest first
        self._total = 0.0

    def saw(self, tenant: str, now: float) -> None:
        """A tenant asks."""
        if tenant not in self._seen:
            self._total += self._weight(tenant)
        self._seen[tenant] = now
        self._seen.move_to_end(tenant)
        while now - (oldest := next(iter(self._seen.items())))[1] > SEEN_SECONDS:
            del self._seen[oldest[0]]
            self._total -= self._weight(oldest[0])

    def part(self, tenant: str) -> float:
        """Share of the queue in (0, 1] that a tenant may hold; call `saw` first."""
        return 1.0 if len(self._seen) <= 1 else self._weight(tenant) / self._total

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)
