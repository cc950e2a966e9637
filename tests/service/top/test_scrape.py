"""What happened between two scrapes."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from service.top.scrape import Between, Scrape


def scrapes(values: list[float]) -> Between:
    """Ten seconds in which a histogram took in these values, after some others."""
    registry = CollectorRegistry()
    histogram = Histogram("h", "-", ["kind"], buckets=(1.0, 2.0, 4.0), registry=registry)
    counter = Counter("c", "-", ["kind"], registry=registry)
    histogram.labels("a").observe(3.0)
    counter.labels("a").inc(7)
    before = Scrape.parse(generate_latest(registry).decode())
    for value in values:
        histogram.labels("a").observe(value)
        counter.labels("a").inc()
    return Between(before, Scrape.parse(generate_latest(registry).decode()), 10.0)


def test_rates_are_of_the_time_between() -> None:
    """What was counted before does not matter."""
    seen = scrapes([0.5, 1.5])
    assert seen.rate("c_total") == pytest.approx(0.2)
    assert seen.rates("c_total", "kind") == pytest.approx({"a": 0.2})
    assert seen.rate("c_total", kind="b") == 0


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([0.5] * 4, 0.5, 0.5),
        ([1.5] * 4, 0.5, 1.5),
        ([0.5, 1.5, 1.5, 1.5], 1.0, 2.0),
        ([9.0], 0.5, 4.0),
        ([], 0.5, None),
    ],
)
def test_quantiles_are_interpolated(values: list[float], q: float, expected: float | None) -> None:
    """As Prometheus does: linear within a bucket, the last finite edge beyond, nothing of nothing."""
    assert scrapes(values).quantile(q, "h", kind="a") == expected


def test_a_restart_counts_from_zero() -> None:
    """A counter that fell was started anew."""
    seen = scrapes([1.0] * 3)
    assert Between(seen.after, seen.before, 10.0).rate("c_total") == pytest.approx(0.7)
