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
import contextlib
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvloop

from models.manifest import SHIPPED
from service.demo.candidates import read_catalogue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ITEMS = 16
FACTORS = (2, 5, 10)
SWEEP = (0.7, 0.85, 1.0, 1.25, 1.6, 2.0)  # of what a closed loop gets through
PEER = (0.5, 0.9, 1.2, 2, 5, 10)
SETTLE = 1.0  # seconds at the start of each load that do not count
REST = 4.0  # seconds of half the peak rate after the 10-fold load
OK = 200


@dataclass
class Load:
    """One stretch of offered load and what came of it."""

    rate: float
    seconds: float
    deadline: float
    latencies: list[float] = field(default_factory=list)  # of status 200, seconds
    good: list[float] = field(default_factory=list)  # when they were due, seconds from the start
    bad: list[float] = field(default_factory=list)
    core_share: float = 0.0  # processor time of the service over time
    statuses: Counter[int] = field(default_factory=Counter)  # 0: no answer

    def note(self, due: float, latency: float, status: int, *, complete: bool) -> None:
        """One request ended."""
        in_time = complete and latency <= self.deadline
        (self.good if in_time else self.bad).append(due)
        if due >= SETTLE:
            self.statuses[status] += 1
            if status == OK:
                self.latencies.append(latency)

    @property
    def goodput(self) -> float:
        """Good answers a second."""
        return sum(due >= SETTLE for due in self.good) / (self.seconds - SETTLE)

    def quantile_ms(self, share: float) -> float:
        """Of the latency of answers."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000.0 if ordered else 0.0


class Connection(asyncio.Protocol):
    """One connection that has at most one request under way; reads no more of HTTP than the service writes."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self._read += data
        head = self._read.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._read.find(b"content-length: ", 0, head)
        length = int(self._read[at + 16 : self._read.find(b"\r", at)])
        if len(self._read) >= head + 4 + length and self.answer and not self.answer.done():
            self.answer.set_result((int(self._read[9:12]), bytes(self._read[head + 4 :])))
            self._read.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        """The request under way has no answer."""
        del exc
        self.transport = None
        if self.answer and not self.answer.done():
            self.answer.set_result((0, b""))


class Generator:
    """Sends requests when they are due, over connections that are kept."""

    def __init__(self, service: Service, deadline_ms: float) -> None:
        self._service = service
        self._port = service.port
        self._deadline = deadline_ms / 1000.0
        self._idle: deque[Connection] = deque()
        self._products = read_catalogue()
        self._made = 0

    def _request(self, chance: random.Random) -> bytes:
        chosen = chance.sample(self._products, ITEMS)
        words = chance.choice(chosen)["title"].split()
        self._made += 1
        body = json.dumps({"query": " ".join([*words[:3], str(self._made)]), "items": chosen}).encode()
        head = f"POST /v1/score HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n"
        return f"{head}x-request-deadline-ms: {self._deadline * 1000.0:g}\r\n\r\n".encode() + body

    async def _ask(self, raw: bytes, load: Load, due: float, start: float) -> None:
        loop = asyncio.get_running_loop()
        connection = None
        while self._idle and (connection is None or connection.transport is None):
            connection = self._idle.pop()
        if connection is None or connection.transport is None:
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._port)
        connection.answer = loop.create_future()
        assert connection.transport is not None
        connection.transport.write(raw)
        status, body = await connection.answer
        latency = time.perf_counter() - start - due
        load.note(due, latency, status, complete=status == OK and b'"degraded":[]' in body)
        self._idle.append(connection)

    async def offer(self, rate: float, seconds: float, seed: int) -> Load:
        """Offer so many requests a second, wait for all answers."""
        chance = random.Random(seed)
        load = Load(rate, seconds, self._deadline)
        # A Poisson process whose count is known: as bursty, without the noise of the count.
        dues = sorted(chance.uniform(0.0, seconds) for _ in range(round(rate * seconds)))
        requests = [self._request(chance) for _ in dues]
        start = time.perf_counter() + 0.05
        before = self._service.processor_s()
        async with asyncio.TaskGroup() as tasks:
            for due, raw in zip(dues, requests, strict=True):
                if (early := start + due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                tasks.create_task(self._ask(raw, load, due, start))
            load.core_share = (self._service.processor_s() - before) / (time.perf_counter() - start)
        return load

    async def closed(self, clients: int, seconds: float) -> float:
        """Requests a second that so many clients get through, each waiting for its answer: where to begin the sweep."""
        load = Load(0.0, seconds, self._deadline)
        chance = random.Random(0)
        start = time.perf_counter()

        async def client() -> None:
            while (due := time.perf_counter() - start) < seconds:
                await self._ask(self._request(chance), load, due, start)

        await asyncio.gather(*(client() for _ in range(clients)))
        return load.goodput


class Service:
    """`tierwise serve` on one core, and its memory."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._stat = Path(f"/proc/{process.pid}/stat")
        self._statm = Path(f"/proc/{process.pid}/statm")
        self.highest = 0.0

    def processor_s(self) -> float:
        """Processor time until now."""
        fields = self._stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        """Resident now."""
        return int(self._statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def watch(self) -> None:
        """Remember the highest."""
        while True:
            self.highest = max(self.highest, self.memory_mb())
            await asyncio.sleep(0.1)


@contextlib.contextmanager
def service(checkpoint: Path, core: int, *, admission: bool) -> Iterator[Service]:
    """A ready service on one core; this process is on the others."""
    command = [sys.executable, "-m", "service", "serve", "--checkpoint", str(checkpoint), "--http-port", "0"]
    settings = {"ADMISSION__ENABLED": str(admission).lower(), "CACHE__ENABLED": "false", "GRPC_PORT": "0"}
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # inherited
    process = subprocess.Popen(  # noqa: S603 # our own command
        [*command, "--admin-port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {f"TIERWISE_{name}": value for name, value in settings.items()},
    )
    os.sched_setaffinity(0, mine)
    assert process.stdout is not None
    drain = None
    try:
        address = ""
        for line in process.stdout:
            address = json.loads(line).get("http", address)
            if address and _ready(address):
                break
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)  # noqa: S607 # a full pipe stops
        yield Service(process, int(address.rpartition(":")[2]))
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        if drain is not None:
            drain.wait()


def _ready(address: str) -> bool:
    host, _, port = address.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == OK
    return False


def show(name: str, load: Load) -> None:
    """One line."""
    statuses = " ".join(f"{status}:{count}" for status, count in sorted(load.statuses.items()))
    rates = f"offered {load.rate:7.1f}/s  good {load.goodput:6.1f}/s"
    times = f"p50 {load.quantile_ms(0.5):4.0f} ms  p99 {load.quantile_ms(0.99):4.0f} ms  core {load.core_share:4.0%}"
    print(f"{name:16} {rates}  {times}  {statuses}", flush=True)


async def measure_ours(args: argparse.Namespace) -> dict[str, Any]:
    """Sweep, overload, recovery."""
    with service(args.checkpoint, args.server_core, admission=True) as ours:
        generator = Generator(ours, args.deadline)
        await generator.closed(4, 2.0)  # warm
        capacity = await generator.closed(4, 3.0)
        curve = []
        for n, share in enumerate(SWEEP):
            load = await generator.offer(share * capacity, args.seconds, seed=n)
            show("sweep", load)
            curve.append([load.rate, load.goodput])
        peak = max(goodput for _, goodput in curve)
        before = ours.memory_mb()
        watching = asyncio.create_task(ours.watch())
        goodputs: dict[int, list[float]] = {factor: [] for factor in FACTORS}
        p99: dict[int, list[float]] = {factor: [] for factor in FACTORS}
        recoveries = []
        core: list[float] = []
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
        watching.cancel()
    ratios = {factor: [g / peak for g in values] for factor, values in goodputs.items()}
    curve += [[factor * peak, statistics.median(goodputs[factor])] for factor in FACTORS]
    return {
        "peak_per_s": round(peak, 2),
        "goodput_ratio": {str(f): round(statistics.median(values), 3) for f, values in ratios.items()},
        "goodput_ratio_range": {str(f): [round(min(v), 3), round(max(v), 3)] for f, v in ratios.items()},
        "p99_ms": round(max(statistics.median(values) for values in p99.values()), 1),
        "p99_ms_by_factor": {str(f): round(statistics.median(values), 1) for f, values in p99.items()},
        "deadline_ms": args.deadline,
        "rss_growth_mb": round(ours.highest - before, 1),
        "recovery_s": round(max(recoveries), 2),
        "core_share": round(min(core), 2),
        "curve": [[round(rate, 1), round(goodput, 1)] for rate, goodput in curve],
    }


async def measure_peer(args: argparse.Namespace, peak: float) -> dict[str, Any]:
    """The same service with admission off, at the same rates."""
    curve = []
    with service(args.checkpoint, args.server_core, admission=False) as peer:
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
    args.seconds, args.peer_seconds, args.rounds = (11.0, 6.0, 1) if args.quick else (21.0, 11.0, 3)
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
