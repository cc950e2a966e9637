"""What the parts of a gateway say of themselves when metrics are asked for: nothing here is on a request's path."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from itertools import accumulate
from math import inf, nan
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from service.cache.breaker import BreakerState
from service.metrics import catalogue as c
from service.request import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric as Family

    from service.cache.cache import ResultCache
    from service.gateway import Gateway


class State(Collector):
    """The state of one gateway; register it once with `Metrics.registry`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Family]:
        """Every family of `catalogue.STATE`, without rows where a part is not there."""
        yield _family(c.BUILD, {(version("tierwise"),): 1.0})
        yield from _engine(self._gateway)
        yield from _admission(self._gateway)
        yield from _cache(self._gateway.pipeline.cache)
        yield from _judge(self._gateway)
        yield from _knowledge(self._gateway)
        yield _access(self._gateway)


def _engine(gateway: Gateway) -> Iterator[Family]:
    health = gateway.pipeline.judge.engine.health()
    report = gateway.health.readiness()
    yield _plain(c.READY, report.ok)
    ready: dict[tuple[str, ...], float] = {(gateway.pipeline.judge.manifest.name,): report.ok}
    yield _family(c.JUDGE_READY, ready | {(judge.name,): report.ok and judge.ok for judge in report.judges})
    yield _plain(c.LOOP_LAG, gateway.health.loop_lag)
    yield _plain(c.ENGINE_ALIVE, health.alive)
    yield _plain(c.QUEUED_TOKENS, health.queued_tokens)
    yield _plain(c.STEPS, health.steps)
    yield _batches(health.batches)


def _batches(batches: Mapping[int, int]) -> Family:
    family = HistogramMetricFamily(c.BATCH.name, c.BATCH.help)
    if batches:
        edges = (*c.ROWS, inf)
        counts = [sum(n for size, n in batches.items() if low < size <= high) for low, high in zip((0, *edges), edges)]  # noqa: B905 # one edge more than buckets
        buckets = [("+Inf" if e == inf else f"{e:.1f}", n) for e, n in zip(edges, accumulate(counts), strict=True)]
        family.add_metric([], buckets, sum(size * n for size, n in batches.items()))
    return family


def _admission(gateway: Gateway) -> Iterator[Family]:
    admission = gateway.admission
    yield _plain(c.ADMITTED_REQUESTS, admission.queued_requests)
    yield _plain(c.ADMITTED_TOKENS, admission.queued_tokens)
    yield _plain(c.ADMITTED_BYTES, admission.bytes_in_flight)
    yield _plain(c.RATE, nan if admission.rate is None else admission.rate)
    yield _family(c.ADMISSIONS, {(outcome,): n for outcome, n in asdict(admission.counts).items()})
    yield _plain(c.BROWN_OUT, admission.step_for(Caller()))


def _cache(cache: ResultCache | None) -> Iterator[Family]:
    found: dict[tuple[str, ...], float] = {}
    events: dict[tuple[str, ...], float] = {}
    failures: dict[tuple[str, ...], float] = {}
    is_open: dict[tuple[str, ...], float] = {}
    opened: dict[tuple[str, ...], float] = {}
    sizes: tuple[float, float] = (0, 0)
    if cache is not None:
        stats = cache.stats
        sizes = len(cache.memory), cache.memory.bytes
        found = {("memory",): stats.memory_hits, ("miss",): stats.misses}
        events = {
            ("stored",): stats.stores,
            ("evicted",): cache.memory.evicted,
            ("joined",): cache.flights.joined,
            ("corrupted",): stats.corrupted,
            ("other_chunk",): stats.other_decision,
            ("refreshes",): stats.refreshes,
        }
        if (remote := cache.remote) is not None:
            found["redis",] = stats.remote_hits
            events |= {("dropped",): remote.stats.dropped, ("crowded",): remote.stats.crowded}
            timeouts = remote.stats.timeouts
            failures = {("timeout",): timeouts, ("other",): remote.stats.failures - timeouts}
            for part, breaker in (("redis_reads", remote.reads), ("redis_writes", remote.writes)):
                is_open[part,] = breaker.state is not BreakerState.CLOSED
                opened[part,] = breaker.opened
    yield _family(c.CACHE_ITEMS, found)
    yield _family(c.CACHE_EVENTS, events)
    yield _plain(c.CACHE_ENTRIES, sizes[0])
    yield _plain(c.CACHE_BYTES, sizes[1])
    yield _family(c.REDIS_FAILURES, failures)
    yield _family(c.BREAKER_OPEN, is_open)
    yield _family(c.BREAKER_OPENED, opened)


def _judge(gateway: Gateway) -> Iterator[Family]:
    labels: dict[tuple[str, ...], float] = {}
    for judge in (pipeline.judge for pipeline in gateway.judges):
        versions = judge.versions(None)
        labels[judge.manifest.name, versions.checkpoint, versions.prompt, versions.tiers, judge.engine.name] = 1.0
    yield _family(c.CHECKPOINT, labels)
    yield _plain(c.CHECKPOINT_LOADED, gateway.judge_loaded_at)
    yield _plain(c.CHECKPOINT_REFUSED, bool(gateway.refused))


def _knowledge(gateway: Gateway) -> Iterator[Family]:
    live = {name: (one, one.current) for name, one in gateway.knowledge.items()}
    yield _family(c.INDEX, {(name, now.version): 1.0 for name, (_, now) in live.items() if now})
    yield _family(c.INDEX_BUILT, {(name,): now.built_at for name, (_, now) in live.items() if now})
    yield _family(c.INDEX_CHECKED, {(name,): one.checked_at for name, (one, _) in live.items()})


def _access(gateway: Gateway) -> Family:
    files = {"keys": gateway.access, "certificate": gateway.tls}
    return _family(c.ACCESS_REFUSED, {(name,): one.refused is not None for name, one in files.items() if one})


def _plain(metric: c.Metric, value: float) -> Family:
    return _family(metric, {(): value})


def _family(metric: c.Metric, rows: Mapping[tuple[str, ...], float]) -> Family:
    make = CounterMetricFamily if metric.kind is c.Kind.COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in rows.items():
        family.add_metric(labels, value)
    return family
