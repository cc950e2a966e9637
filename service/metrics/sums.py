"""Summaries without quantiles: a count and a sum, from which means are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import SummaryMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.metrics.catalogue import Metric


class Sums(Collector):
    """A summary without quantiles, of many values at a time: prometheus_client's own takes them one by one."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._kept: dict[str, tuple[int, float]] = {}

    def add(self, label: str, values: Sequence[float]) -> None:
        """Take in some values under one label value."""
        if values:
            count, total = self._kept.get(label, (0, 0.0))
            self._kept[label] = count + len(values), total + sum(values)

    def collect(self) -> Iterator[SummaryMetricFamily]:
        """The family."""
        family = SummaryMetricFamily(self._metric.name, self._metric.help, labels=self._metric.labels)
        for label, (count, total) in self._kept.items():
            family.add_metric([label], count, total)
        yield family
