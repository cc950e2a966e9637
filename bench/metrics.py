"""What metrics cost a request, in microseconds, beside what a plain use of prometheus_client would.

    .venv/bin/python bench/metrics.py [--json FILE] [--quick]

Ours takes note of one judged request of N items and of its answer, as the service does. The peer keeps the same facts
the usual way: it looks every label up for every item and observes every score, margin and label mass by itself.
Medians over rounds that take turns, with the 5th and 95th percentile, and what a scrape costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary, generate_latest

from models.deadline import Deadline
from models.engines.port import ItemStatus
from service.fetch import Fetched
from service.metrics import Metrics
from service.metrics.catalogue import LADDER, edges
from service.pipeline import Judge, Judged
from service.reply import ItemResult, Usage
from service.request import Call, Caller, Candidate, ScoreRequest, Timings

if TYPE_CHECKING:
    from collections.abc import Callable

TIERS = ("4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant")
STAGES = ("parse", "recall", "fetch", "embed", "search", "write", "queue", "score", "judge", "total")
PATH, CHECKPOINT = "/v1/score", "mini@0123456789ab"


class Plain:
    """The peer."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("requests", "-", ["door", "path", "status", "tenant"], registry=registry)
        self.seconds = Histogram("seconds", "-", ["door", "path"], buckets=edges(1.0), registry=registry)
        self.stages = Histogram("stages", "-", ["stage"], buckets=LADDER, registry=registry)
        self.items = Counter("items", "-", ["status", "tenant"], registry=registry)
        self.tiers = Counter("tiers", "-", ["checkpoint", "tier"], registry=registry)
        self.values = [Summary(name, "-", ["checkpoint"], registry=registry) for name in ("score", "margin", "mass")]
        self.tokens = Counter("tokens", "-", ["source", "tenant"], registry=registry)

    def observe(self, call: Call, judged: Judged) -> None:
        """Take note of one request."""
        for stage, milliseconds in call.timings_ms.items():
            self.stages.labels(stage).observe(milliseconds / 1000.0)
        for result in judged.results:
            self.items.labels(result.status, "public").inc()
            self.tiers.labels(CHECKPOINT, result.tier).inc()
            for summary, value in zip(self.values, (result.score, result.margin, result.label_mass), strict=True):
                summary.labels(CHECKPOINT).observe(value or 0.0)
        self.tokens.labels("computed", "public").inc(judged.usage.prompt_tokens)
        self.requests.labels("http", PATH, "200", "public").inc()
        self.seconds.labels("http", PATH).observe(0.02)


def judged(items: int) -> Judged:
    """A reply of this many items."""
    results = tuple(
        ItemResult(
            id=str(n),
            index=n,
            status=ItemStatus.OK,
            tier=TIERS[n % 4],
            label="x",
            band="Good",
            score=0.5,
            margin=0.1,
            probabilities=dict.fromkeys(TIERS, 0.25),
            label_mass=0.99,
            truncated=(),
            unrepresentable=(),
        )
        for n in range(items)
    )
    return Judged(results, (), Usage(64 * items, 0, 64 * items, 0))


def microseconds(work: Callable[[], None], times: int) -> float:
    """Time of one."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times * 1e6


def summary(samples: list[float]) -> dict[str, float]:
    """Median and the interval that nine in ten rounds fell into."""
    cuts = statistics.quantiles(samples, n=20)
    return {"median": statistics.median(samples), "p5": cuts[0], "p95": cuts[-1]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rounds, times = (5, 50) if arguments.quick else (40, 400)
    request = ScoreRequest("q", cast("tuple[Candidate, ...]", ()))
    judge = cast("Judge", SimpleNamespace(manifest=SimpleNamespace(checkpoint_id=CHECKPOINT)))
    result: dict[str, Any] = {"rounds": rounds, "times": times, "items": {}}
    for items in (1, 32, 128):
        ours, plain, reply = Metrics(), Plain(), judged(items)
        timings = Timings()
        timings.update(dict.fromkeys(STAGES, 2.5))
        call = Call("r", Deadline.after(3_600_000), time.monotonic(), timings, Caller())

        def note(ours: Metrics = ours, reply: Judged = reply, call: Call = call) -> None:
            ours.judged(request, call, Fetched(), reply, judge)
            ours.answered(PATH, 200, 0.02, tenant="public")

        def peer(plain: Plain = plain, reply: Judged = reply, call: Call = call) -> None:
            plain.observe(call, reply)

        samples: dict[str, list[float]] = {"ours": [], "plain": []}
        for _ in range(rounds):
            samples["ours"].append(microseconds(note, times))
            samples["plain"].append(microseconds(peer, times))
        result["items"][items] = {name: summary(found) for name, found in samples.items()}

        def scrape(ours: Metrics = ours) -> None:
            generate_latest(ours.registry)

        result["scrape_us"] = microseconds(scrape, 20)
    for items, found in result["items"].items():
        line = ", ".join(f"{n} {v['median']:.1f} [{v['p5']:.1f}, {v['p95']:.1f}]" for n, v in found.items())
        print(f"{items:4} items: {line} us a request")
    print(f"a scrape: {result['scrape_us']:.0f} us")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
