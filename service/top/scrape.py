"""Scrapes of /metrics, and what happened between two of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Self

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Scrape:
    """Samples by name, each a list of labels and value."""

    samples: Mapping[str, list[tuple[Mapping[str, str], float]]]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text format.

        Raises:
            ValueError: it is not that.
        """
        samples: defaultdict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name].append((sample.labels, sample.value))
        return cls(dict(samples))

    def matching(self, name: str, where: Mapping[str, str]) -> Iterator[tuple[Mapping[str, str], float]]:
        """Samples whose labels hold these values."""
        for labels, value in self.samples.get(name, ()):
            if all(labels.get(key) == wanted for key, wanted in where.items()):
                yield labels, value

    def total(self, name: str, **where: str) -> float:
        """Sum over all samples that match."""
        return sum(value for _, value in self.matching(name, where))

    def labels(self, name: str) -> list[Mapping[str, str]]:
        """Labels of every sample, e.g. of an `_info`."""
        return [labels for labels, _ in self.samples.get(name, ())]

    def by(self, name: str, label: str, **where: str) -> dict[str, float]:
        """Sums by one label's values, in the order of the text."""
        sums: defaultdict[str, float] = defaultdict(float)
        for labels, value in self.matching(name, where):
            sums[labels.get(label, "")] += value
        return dict(sums)


@dataclass(frozen=True, slots=True)
class Between:
    """Two scrapes of one service, some seconds apart."""

    before: Scrape
    after: Scrape
    seconds: float

    def rate(self, name: str, **where: str) -> float:
        """Growth per second. A service that was started anew in between counts from 0."""
        return _growth(self.before.total(name, **where), self.after.total(name, **where)) / self.seconds

    def rates(self, name: str, label: str, **where: str) -> dict[str, float]:
        """Growth per second by one label's values."""
        old = self.before.by(name, label, **where)
        new = self.after.by(name, label, **where)
        return {key: _growth(old.get(key, 0.0), value) / self.seconds for key, value in new.items()}

    def quantile(self, q: float, name: str, **where: str) -> float | None:
        """A quantile of what a histogram took in, interpolated within its bucket; None when it took in nothing."""
        old = self.before.by(f"{name}_bucket", "le", **where)
        new = self.after.by(f"{name}_bucket", "le", **where)
        counts = sorted((float(edge), _growth(old.get(edge, 0.0), count)) for edge, count in new.items())
        if not counts or not counts[-1][1]:
            return None
        rank = q * counts[-1][1]
        low = below = 0.0
        for edge, count in counts:
            if count >= rank and count > below:
                return low if edge == inf else low + (edge - low) * (rank - below) / (count - below)
            low, below = edge, count
        return low


def _growth(old: float, new: float) -> float:
    return new - old if new >= old else new
