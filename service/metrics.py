"""Prometheus metrics of one process. Base units; no label that a caller can choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.engines.port import EngineHealth
    from service.health import Health
    from service.reply import Degraded, ItemResult

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """Counters and histograms, fed by the doors."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter("tierwise_requests", "Requests answered", ["path", "status"], registry=self.registry)
        self._seconds = Histogram(
            "tierwise_request_seconds", "Time to answer", ["path"], buckets=BUCKETS, registry=self.registry
        )
        self._stages = Histogram(
            "tierwise_stage_seconds", "Time in a stage", ["stage"], buckets=BUCKETS, registry=self.registry
        )
        self._items = Counter("tierwise_items", "Items by outcome", ["status"], registry=self.registry)
        self._tiers = Counter("tierwise_item_tiers", "Scored items by tier", ["tier"], registry=self.registry)
        self._degraded = Counter("tierwise_degraded", "Answers by flag", ["flag"], registry=self.registry)
        self._ready = Gauge("tierwise_ready", "1 when ready for traffic", registry=self.registry)
        self._queued_tokens = Gauge(
            "tierwise_engine_queued_tokens", "Tokens waiting in the engine", registry=self.registry
        )
        self._loop_lag = Gauge("tierwise_event_loop_lag_seconds", "Delay of the event loop", registry=self.registry)

    def observe_state(self, health: Health, engine: EngineHealth) -> None:
        """Set the gauges; called when metrics are read."""
        self._ready.set(health.readiness().ok)
        self._loop_lag.set(health.loop_lag)
        self._queued_tokens.set(engine.queued_tokens)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """One request is done. `path` is a route's template."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def scored(
        self, timings_ms: Mapping[str, float], results: Sequence[ItemResult], degraded: Sequence[Degraded]
    ) -> None:
        """One request came out of the pipeline."""
        for stage, milliseconds in timings_ms.items():
            if stage != "total":
                self._stages.labels(stage).observe(milliseconds / 1000.0)
        for result in results:
            self._items.labels(result.status).inc()
            if result.tier is not None:
                self._tiers.labels(result.tier).inc()
        for flag in degraded:
            self._degraded.labels(flag).inc()
