"""Several workers' metrics as one scrape. Pure.

Counters and histograms are sums over workers, those that have ended included, so that no sum falls when a worker is
replaced. A gauge is the state of one process: each worker's is kept, under the label `worker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_SUMMED: Final = frozenset({"counter", "histogram", "summary"})
_Key = tuple[str, tuple[tuple[str, str], ...]]  # sample name, sorted labels


class Totals:
    """What workers that have ended counted."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def retire(self, text: str) -> None:
        """Keep the sums of a worker's last scrape."""
        for family in text_string_to_metric_families(text):
            if family.type in _SUMMED:
                _add(self._families, family)

    def merged(self, texts: Mapping[str, str]) -> CollectorRegistry:
        """One registry of these scrapes, by worker, and of what was retired; for a single exposition."""
        families: dict[str, Metric] = {}
        for family in self._families.values():
            _add(families, family)
        for worker, text in texts.items():
            for family in text_string_to_metric_families(text):
                if family.type in _SUMMED:
                    _add(families, family)
                elif not family.name.endswith("_created"):  # when a worker began to count says nothing about a sum
                    _label(families, family, worker)
        registry = CollectorRegistry()
        registry.register(_Fixed(families.values()))
        return registry


class _Fixed(Collector):
    """Metrics that are made already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._families


def _like(families: dict[str, Metric], family: Metric) -> Metric:
    return families.setdefault(family.name, Metric(family.name, family.documentation, family.type))


def _add(families: dict[str, Metric], family: Metric) -> None:
    """Add a family's samples to those of the same name and labels."""
    into = _like(families, family)
    places: dict[_Key, int] = {(s.name, tuple(sorted(s.labels.items()))): n for n, s in enumerate(into.samples)}
    for sample in family.samples:
        if sample.name.endswith("_created"):
            continue
        place = places.get((sample.name, tuple(sorted(sample.labels.items()))))
        if place is None:
            into.add_sample(sample.name, sample.labels, sample.value)
        else:
            into.samples[place] = sample._replace(value=into.samples[place].value + sample.value)


def _label(families: dict[str, Metric], family: Metric, worker: str) -> None:
    into = _like(families, family)
    for sample in family.samples:
        into.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
