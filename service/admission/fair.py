"""Fair share of the engine: when there is not room for all, a tenant gets its weighted part. Pure.

A tenant counts while it asks, let in or not. It is held to its part only while the queue is contended, and while it got
more than its part of late: one that asks for little may come in bursts, and what it leaves goes to others. Then it may
hold no more than its part of the queue, which is its part of the engine, since requests of one deadline leave the queue
in the order they came. The parts add up to less than the queue, so that bursts find room beside a greedy tenant.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from service.admission.fading import Fading

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENDED: Final = 0.35  # of the queue's room; from there on it is contended
SHARED: Final = 0.7  # of the queue's room; all parts together
SEEN_SECONDS: Final = 2.0  # a tenant counts for so long after it asked
HALF_LIFE: Final = 2.0  # seconds, of what a tenant got


class Fair:
    """Which tenants ask now, and what each got of late."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        self._seen: OrderedDict[str, float] = OrderedDict()  # tenant -> last seen, oldest first
        self._got: dict[str, Fading] = {}  # of those seen: tokens
        self._total = 0.0

    def saw(self, tenant: str, now: float) -> None:
        """A tenant asks."""
        if tenant not in self._seen:
            self._total += self._weight(tenant)
            self._got[tenant] = Fading(1, HALF_LIFE, now)
        self._seen[tenant] = now
        self._seen.move_to_end(tenant)
        while now - (oldest := next(iter(self._seen.items())))[1] > SEEN_SECONDS:
            del self._seen[oldest[0]], self._got[oldest[0]]
            self._total -= self._weight(oldest[0])

    def got(self, tenant: str, tokens: float, now: float) -> None:
        """So many tokens of a tenant were taken on."""
        if tenant in self._got:
            self._got[tenant].add(now, tokens)

    def part(self, tenant: str) -> float:
        """Share in (0, 1] that a tenant is due."""
        alone = not self._seen or (len(self._seen) == 1 and tenant in self._seen)
        return 1.0 if alone else min(1.0, self._weight(tenant) / self._total)

    def held_to(self, tenant: str, rate: float, now: float) -> float | None:
        """Share of the queue's room that a tenant must not go beyond; None while it got no more than it is due.

        Args:
            tenant: of the request.
            rate: tokens a second of the engine.
            now: monotonic seconds.
        """
        part = self.part(tenant)
        if part == 1.0 or tenant not in self._got:
            return None
        recent = self._got[tenant].read(now)[0] * math.log(2.0) / HALF_LIFE  # tokens a second
        return SHARED * part if recent > part * rate else None

    def _weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)
