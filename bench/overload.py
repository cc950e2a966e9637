"""What the service still answers in time when it is asked for more than it can do: goodput over offered load.

    .venv/bin/python bench/overload.py [--json FILE] [--plot FILE] [--quick] [--deadline 500] [--checkpoint FOLDER]

Open model: requests leave at the moments of a Poisson process whatever the answers do, and latency counts from the
moment a request was due, so that a slow service cannot slow its own load down. `tierwise serve` runs on one core with
the shipped checkpoint, the generator on another; requests of 16 products over HTTP, without the result cache, and no
two with the same query, so no kept prefix helps either.

A good answer came within the deadline with all 16 items scored and nothing degraded. The peak is the best goodput of a
sweep; then 2, 5 and 10 times that rate are offered, and half of it right after. The peer, in the same run, is the same
service with admission switched off: its engine still computes earliest deadline first and drops what has expired.

    goodput_ratio   good answers a second at 2, 5 and 10 times the peak, over the peak; median over rounds
    p99_ms          of the answers with status 200, the worst of the factors
    rss_growth_mb   highest resident memory of the service under overload, less that before
    recovery_s      from the end of the 10-fold load to the last answer that was not good; worst of the rounds
    core_share      of its core that the service got under overload, lowest of the factors: less than 0.95 means that
                    other work disturbed the run
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import uvloop

from bench.load import ITEMS, Generator, Load
from bench.serving import Server, tierwise
from models.manifest import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

FACTORS = (2, 5, 10)
FIRST, FASTER, MOST = 0.7, 1.3, 9  # the sweep begins at this share of what a closed loop gets through
ENOUGH, FLAT = 1.03, 2  # it ends when so often in a row the best has not grown by so much
PEER = (0.5, 0.9, 1.2, 2, 5, 10)
REST = 4.0  # seconds of half the peak rate after the 10-fold load


class HighWater:
    """The highest resident memory of a server while the context is open, MB."""

    def __init__(self, server: Server) -> None:
        self.mb = server.memory_mb()
        self._server = server
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Look now and then."""
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop looking."""
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        while True:
            self.mb = max(self.mb, self._server.memory_mb())
            await asyncio.sleep(0.1)


def service(args: argparse.Namespace, *, admission: bool) -> AbstractContextManager[Server]:
    """A ready service on one core; this process is on the others."""
    return tierwise(args.checkpoint, core=args.server_core, admission__enabled=admission, cache__enabled=False)


def show(name: str, load: Load) -> None:
    """One line."""
    statuses = " ".join(f"{status}:{count}" for status, count in sorted(load.statuses.items()))
    rates = f"offered {load.rate:7.1f}/s  good {load.goodput:6.1f}/s"
    times = f"p50 {load.quantile_ms(0.5):4.0f} ms  p99 {load.quantile_ms(0.99):4.0f} ms  core {load.core_share:4.0%}"
    print(f"{name:16} {rates}  {times}  {statuses}", flush=True)


async def sweep(generator: Generator, rate: float, seconds: float) -> list[list[float]]:
    """Offered rate and goodput, from this rate on until goodput does not grow any more."""
    curve: list[list[float]] = []
    best, idle = 0.0, 0
    while len(curve) < MOST and idle < FLAT:
        load = await generator.offer(rate, seconds, seed=len(curve))
        show("sweep", load)
        curve.append([load.rate, load.goodput])
        idle = 0 if load.goodput > ENOUGH * best else idle + 1
        best = max(best, load.goodput)
        rate *= FASTER
    return curve


async def measure_ours(args: argparse.Namespace) -> dict[str, Any]:
    """Sweep, overload, recovery."""
    with service(args, admission=True) as ours:
        generator = Generator(ours, args.deadline)
        await generator.closed(4, 2.0)  # warm
        capacity = await generator.closed(4, 3.0)
        if not capacity:
            raise SystemExit(f"not one answer within {args.deadline:g} ms, without any overload: is the core taken?")
        curve = await sweep(generator, FIRST * capacity, args.seconds)
        peak = max(goodput for _, goodput in curve)
        before = ours.memory_mb()
        goodputs: dict[int, list[float]] = {factor: [] for factor in FACTORS}
        p99: dict[int, list[float]] = {factor: [] for factor in FACTORS}
        recoveries = []
        core: list[float] = []
        async with HighWater(ours) as highest:
            for round_ in range(args.rounds):
                for factor in FACTORS:
                    load = await generator.offer(factor * peak, args.seconds, seed=100 * round_ + factor)
                    show(f"{factor} x peak", load)
                    goodputs[factor].append(load.goodput)
                    p99[factor].append(load.quantile_ms(0.99))
                    core.append(load.core_share)
                after = await generator.offer(0.5 * peak, REST, seed=round_)
                show("half, right after", after)
                recoveries.append(max(after.bad, default=0.0))
    ratios = {factor: [g / peak for g in values] for factor, values in goodputs.items()}
    curve += [[factor * peak, statistics.median(goodputs[factor])] for factor in FACTORS]
    return {
        "peak_per_s": round(peak, 2),
        "goodput_ratio": {str(f): round(statistics.median(values), 3) for f, values in ratios.items()},
        "goodput_ratio_range": {str(f): [round(min(v), 3), round(max(v), 3)] for f, v in ratios.items()},
        "p99_ms": round(max(statistics.median(values) for values in p99.values()), 1),
        "p99_ms_by_factor": {str(f): round(statistics.median(values), 1) for f, values in p99.items()},
        "deadline_ms": args.deadline,
        "rss_growth_mb": round(highest.mb - before, 1),
        "recovery_s": round(max(recoveries), 2),
        "core_share": round(min(core), 2),
        "curve": [[round(rate, 1), round(goodput, 1)] for rate, goodput in curve],
    }


async def measure_peer(args: argparse.Namespace, peak: float) -> dict[str, Any]:
    """The same service with admission off, at the same rates."""
    curve = []
    with service(args, admission=False) as peer:
        generator = Generator(peer, args.deadline)
        await generator.closed(4, 2.0)
        for n, factor in enumerate(PEER):
            load = await generator.offer(factor * peak, args.peer_seconds, seed=n)
            show("no admission", load)
            curve.append([round(load.rate, 1), round(load.goodput, 1)])
    ratios = {str(f): round(g / peak, 3) for f, (_, g) in zip(PEER, curve, strict=True) if f in FACTORS}
    return {"peer_goodput_ratio": ratios, "peer_curve": curve}


def plot(figures: dict[str, Any], file: Path) -> None:
    """Goodput over offered load, ours and the peer's, in units of the peak."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    peak = figures["peak_per_s"]
    _, axes = plt.subplots(figsize=(6.4, 3.6), dpi=150)
    for name, curve, style in (("admission", "curve", "o-"), ("admission off", "peer_curve", "s--")):
        points = sorted(figures[curve])
        axes.plot([r / peak for r, _ in points], [g / peak for _, g in points], style, label=name, markersize=4)
    axes.axhline(0.9, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel(f"offered load, in units of the peak ({peak:.0f} requests/s of {ITEMS} items, one core)")
    axes.set_ylabel("goodput, in units of the peak")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 10.4)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    plt.tight_layout()
    plt.savefig(file)


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Both, with this process away from the service's core."""
    os.sched_setaffinity(0, os.sched_getaffinity(0) - {args.server_core})
    figures = await measure_ours(args)
    if not args.no_peer:
        figures |= await measure_peer(args, figures["peak_per_s"])
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--plot", type=Path, help="draw goodput over offered load (needs the extra `bench`)")
    parser.add_argument("--quick", action="store_true", help="one short round, within 3 minutes")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--deadline", type=float, default=500.0, help="milliseconds that a caller waits")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    args = parser.parse_args(arguments)
    if args.plot and find_spec("matplotlib") is None:  # found out before the minutes of measuring, not after
        parser.error("--plot needs matplotlib: pip install 'tierwise[bench]'")
    args.seconds, args.peer_seconds, args.rounds = (7.0, 5.0, 1) if args.quick else (11.0, 7.0, 2)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(args))
    for name, value in figures.items():
        print(f"{name:24} {value}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    if args.plot:
        plot(figures, args.plot)


if __name__ == "__main__":
    main()
