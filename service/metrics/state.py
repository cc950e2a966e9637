"""What the parts of a gateway say of themselves when metrics are asked for: nothing here is on a request's path."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from service.metrics import catalogue as c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric as Family

    from service.gateway import Gateway

Row = tuple[tuple[str, ...], float]  # label values, value


class State(Collector):
    """The state of one gateway; register it once with `Metrics.registry`."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Family]:
        """Every family of `catalogue.STATE`."""
        yield _family(c.BUILD, [((version("tierwise"),), 1.0)])
        yield from _engine(self._gateway)
        yield from _judge(self._gateway)


def _engine(gateway: Gateway) -> Iterator[Family]:
    health = gateway.pipeline.judge.engine.health()
    yield _plain(c.READY, gateway.health.readiness().ok)
    yield _plain(c.LOOP_LAG, gateway.health.loop_lag)
    yield _plain(c.ENGINE_ALIVE, health.alive)
    yield _plain(c.QUEUED_TOKENS, health.queued_tokens)
    yield _plain(c.STEPS, health.steps)


def _judge(gateway: Gateway) -> Iterator[Family]:
    judge = gateway.pipeline.judge
    versions = judge.versions(None)
    labels = (judge.manifest.name, versions.checkpoint, versions.prompt, versions.tiers, judge.engine.name)
    yield _family(c.CHECKPOINT, [(labels, 1.0)])
    yield _plain(c.CHECKPOINT_LOADED, gateway.started_at)


def _plain(metric: c.Metric, value: float) -> Family:
    return _family(metric, [((), value)])


def _family(metric: c.Metric, rows: Iterable[Row]) -> Family:
    make = CounterMetricFamily if metric.kind is c.Kind.COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in rows:
        family.add_metric(labels, value)
    return family
