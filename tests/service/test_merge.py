"""Metrics of several workers in one scrape."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest

from service.merge import Totals


def scrape(count: float, *, path: str = "/v1/score", queued: float = 0.0) -> str:
    """What a worker's admin door says."""
    registry = CollectorRegistry()
    Counter("tierwise_requests", "Requests", ["path"], registry=registry).labels(path).inc(count)
    seconds = Histogram("tierwise_seconds", "Time", buckets=(0.1, 1.0), registry=registry)
    for _ in range(int(count)):
        seconds.observe(0.5)
    Summary("tierwise_score", "Scores", registry=registry).observe(count)
    Gauge("tierwise_queued", "Tokens", registry=registry).set(queued)
    return generate_latest(registry).decode()


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """One exposition, by sample."""
    lines = (line.rpartition(" ") for line in generate_latest(registry).decode().splitlines() if line[0] != "#")
    return {name: float(value) for name, _, value in lines}


def test_what_grows_is_summed_and_state_is_kept_by_worker() -> None:
    """One scrape speaks for all workers."""
    merged = samples(Totals().merged({"0": scrape(2, queued=7), "1": scrape(3, queued=1)}))
    assert merged == {
        'tierwise_requests_total{path="/v1/score"}': 5,
        'tierwise_seconds_bucket{le="0.1"}': 0,
        'tierwise_seconds_bucket{le="1.0"}': 5,
        'tierwise_seconds_bucket{le="+Inf"}': 5,
        "tierwise_seconds_count": 5,
        "tierwise_seconds_sum": 2.5,
        "tierwise_score_count": 2,
        "tierwise_score_sum": 5,
        'tierwise_queued{worker="0"}': 7,
        'tierwise_queued{worker="1"}': 1,
    }


def test_labels_that_only_one_worker_has_are_kept() -> None:
    """A text that a caller can influence comes through as it was, quotes and line ends included."""
    merged = samples(Totals().merged({"0": scrape(2), "1": scrape(3, path='a"b\\c')}))
    assert merged['tierwise_requests_total{path="/v1/score"}'] == 2
    assert merged['tierwise_requests_total{path="a\\"b\\\\c"}'] == 3


def test_no_sum_falls_when_a_worker_is_replaced() -> None:
    """What a worker has counted outlives it; its state does not."""
    totals = Totals()
    totals.retire(scrape(10, queued=9))
    totals.retire("")
    assert samples(totals.merged({"0": "", "1": scrape(3)}))['tierwise_requests_total{path="/v1/score"}'] == 13
    merged = samples(totals.merged({"0": scrape(1), "1": scrape(3)}))
    assert merged['tierwise_requests_total{path="/v1/score"}'] == 14
    assert merged['tierwise_queued{worker="0"}'] == 0
    assert samples(totals.merged({}))["tierwise_seconds_count"] == 10
