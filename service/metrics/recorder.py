"""Counts what happens while requests run. Fed by doors and pipeline on the event loop; a few microseconds a request."""

from __future__ import annotations

from collections import Counter as Tally
from typing import TYPE_CHECKING, Final, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from service.metrics import catalogue as c
from service.metrics.shadow import ShadowMetrics
from service.metrics.sums import Sums
from service.reply import Degraded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.fetch import Fetched
    from service.pipeline import Judge, Judged
    from service.reply import ItemResult
    from service.request import Call, ScoreRequest

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call] # half of all series, and nobody asks them

Child = TypeVar("Child", Counter, Histogram)

MOST_TENANTS: Final = 50  # with a label of their own; those that come later share one
OTHER: Final = "other"
PROBES: Final = frozenset({"/livez", "/readyz"})  # a kubelet's requests would water down every ratio
REFUSED, MISSED = 503, 504
PARTIAL: Final = frozenset({Degraded.DEADLINE, Degraded.CACHE_ONLY, Degraded.FIRST_ITEMS})  # items are missing


class Metrics:
    """Counters and histograms of one process.

    Args:
        budget_seconds: of a call; buckets are finer around it.
    """

    def __init__(self, budget_seconds: float = 1.0) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Children(self._counter(c.REQUESTS))
        self._seconds = Children(self._histogram(c.REQUEST_SECONDS, c.edges(budget_seconds)))
        self._deadlines = Children(self._counter(c.DEADLINES))
        self._used = self._histogram(c.DEADLINE_USED, c.SHARES)
        self._stage = Children(self._histogram(c.STAGE_SECONDS, c.LADDER))
        self._items = Children(self._counter(c.ITEMS))
        self._tokens = Children(self._counter(c.TOKENS))
        self._cached = Children(self._counter(c.CACHED_ITEMS))
        self._degraded = Children(self._counter(c.DEGRADED))
        self._chunks = Children(self._counter(c.CHUNKS))
        self._tiers = Children(self._counter(c.TIERS))
        self._truncated = self._counter(c.TRUNCATED)
        self._score, self._margin, self._mass = Sums(c.SCORE), Sums(c.MARGIN), Sums(c.LABEL_MASS)
        for sums in (self._score, self._margin, self._mass):
            self.registry.register(sums)
        self.shadow = ShadowMetrics(self.registry)
        self._tenants: set[str] = set()

    def answered(self, path: str, status: int, seconds: float, *, door: str = "http", tenant: str = "") -> None:
        """One request is done. `path` is a route's template, `status` HTTP's at every door, `tenant` "" if unknown."""
        if path in PROBES:
            return
        name = self._tenant(tenant)
        self._requests[door, path, str(status), name].inc()
        self._seconds[door, path].observe(seconds)
        if status in (REFUSED, MISSED):
            self._deadlines["refused" if status == REFUSED else "missed", name].inc()

    def judged(self, request: ScoreRequest, call: Call, fetched: Fetched, judged: Judged, judge: Judge) -> None:
        """The pipeline judged a request; see `service.pipeline.Observer`."""
        del request
        tenant, checkpoint = self._tenant(call.caller.tenant), judge.manifest.checkpoint_id
        self._time(call, tenant, judged)
        self._take(checkpoint, tenant, judged.results)
        usage = judged.usage
        self._tokens["computed", tenant].inc(usage.prompt_tokens - usage.cached_tokens)
        self._tokens["reused", tenant].inc(usage.cached_tokens)
        self._cached[tenant,].inc(usage.cached_items)
        for flag in judged.degraded:
            self._degraded[flag,].inc()
        self._chunks[_chunk(fetched),].inc()

    def _time(self, call: Call, tenant: str, judged: Judged) -> None:
        for stage, milliseconds in call.timings_ms.items():
            self._stage[stage,].observe(milliseconds / 1000.0)
        total, left = call.timings_ms["total"] / 1000.0, call.deadline.remaining()
        if left < float("inf"):
            self._used.observe(total / (total + left) if left else 2.0 * c.SHARES[-1])
        outcome = "late" if left == 0.0 else "met" if PARTIAL.isdisjoint(judged.degraded) else "partial"
        self._deadlines[outcome, tenant].inc()

    def _take(self, checkpoint: str, tenant: str, results: Sequence[ItemResult]) -> None:
        for status, count in Tally([r.status for r in results]).items():
            self._items[status, tenant].inc(count)
        for tier, count in Tally([r.tier for r in results if r.tier is not None]).items():
            self._tiers[checkpoint, tier].inc(count)
        self._score.add(checkpoint, [r.score for r in results if r.score is not None])
        self._margin.add(checkpoint, [r.margin for r in results if r.margin is not None])
        self._mass.add(checkpoint, [r.label_mass for r in results if r.label_mass is not None])
        if truncated := sum(1 for r in results if r.truncated):
            self._truncated.inc(truncated)

    def _tenant(self, tenant: str) -> str:
        if tenant not in self._tenants:
            if len(self._tenants) == MOST_TENANTS:
                return OTHER
            self._tenants.add(tenant)
        return tenant

    def _counter(self, metric: c.Metric) -> Counter:
        return Counter(metric.name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: c.Metric, buckets: Sequence[float]) -> Histogram:
        return Histogram(metric.name, metric.help, metric.labels, buckets=buckets, registry=self.registry)


class Children(dict[tuple[str, ...], Child]):
    """A metric's children by their label values: looking one up in the metric itself costs as much as counting."""

    def __init__(self, metric: Child) -> None:
        super().__init__()
        self._metric: Child = metric

    def __missing__(self, values: tuple[str, ...]) -> Child:
        child: Child = self._metric.labels(*values)
        self[values] = child
        return child


def _chunk(fetched: Fetched) -> str:
    if fetched.reference is None:
        return "failed" if fetched.failed else "none"
    return "used" if fetched.reference.chunk_id is not None else "caller"
