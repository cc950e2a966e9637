"""How a candidate in shadow mode compares with what was answered."""

from __future__ import annotations

from collections import Counter as Tally
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.metrics import catalogue as c
from service.metrics.sums import Sums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.reply import ItemResult, Versions


class ShadowMetrics:
    """Counters of one process; all zero without a candidate."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            c.SHADOW_REQUESTS.name, c.SHADOW_REQUESTS.help, c.SHADOW_REQUESTS.labels, registry=registry
        )
        self._items = Counter(c.SHADOW_ITEMS.name, c.SHADOW_ITEMS.help, c.SHADOW_ITEMS.labels, registry=registry)
        self._flips = Counter(c.SHADOW_FLIPS.name, c.SHADOW_FLIPS.help, c.SHADOW_FLIPS.labels, registry=registry)
        self._stages = Histogram(
            c.SHADOW_STAGES.name, c.SHADOW_STAGES.help, c.SHADOW_STAGES.labels, buckets=c.LADDER, registry=registry
        )
        self._distance = Sums(c.SHADOW_DISTANCE)
        registry.register(self._distance)

    def compared(
        self, versions: Versions, timings_ms: Mapping[str, float], pairs: Sequence[tuple[ItemResult, ItemResult]]
    ) -> None:
        """A sample was judged again: `pairs` of what was answered and what the candidate says."""
        candidate = (versions.checkpoint, versions.index or "")
        self.requests.labels("compared").inc()
        for stage, milliseconds in timings_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000.0)
        for outcome, count in Tally([_outcome(*pair) for pair in pairs]).items():
            self._items.labels(*candidate, outcome).inc(count)
        for (live, found), count in Tally([(a.tier, b.tier) for a, b in pairs if a.tier != b.tier]).items():
            self._flips.labels(live, found).inc(count)
        self._distance.add(versions.checkpoint, [abs((a.score or 0.0) - (b.score or 0.0)) for a, b in pairs])


def _outcome(live: ItemResult, found: ItemResult) -> str:
    if live.tier == found.tier:
        return "same"
    return "tier" if live.band == found.band else "band"
