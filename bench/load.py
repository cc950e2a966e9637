"""Open-model load over HTTP: requests leave when they are due, whatever the answers do; latency counts from then."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from service.demo.candidates import read_catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

ITEMS = 16
SETTLE = 1.0  # seconds at the start of each load that do not count
OK = 200


class Target(Protocol):
    """A service under load."""

    @property
    def ports(self) -> Mapping[str, int]:
        """By protocol, on this machine."""
        ...

    def processor_s(self) -> float:
        """Processor time until now."""
        ...


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

    def __init__(self, target: Target, deadline_ms: float) -> None:
        self._target = target
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
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._target.ports["http"])
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
        before = self._target.processor_s()
        async with asyncio.TaskGroup() as tasks:
            for due, raw in zip(dues, requests, strict=True):
                if (early := start + due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                tasks.create_task(self._ask(raw, load, due, start))
            load.core_share = (self._target.processor_s() - before) / (time.perf_counter() - start)
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
