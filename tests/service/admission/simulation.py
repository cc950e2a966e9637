"""An engine and its callers on a clock moved by hand: requests come, admission decides, the engine computes EDF."""

from __future__ import annotations

import heapq
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from models.deadline import Deadline
from service.admission.admission import Admission, Ticket
from service.admission.settings import AdmissionSettings
from service.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.request import Caller

PREFIX, ITEM, ITEMS = 50, 100, 16
COST = PREFIX + ITEM * ITEMS  # tokens of a request
BYTES = 6_000
PASS = 500.0  # tokens of one forward pass, which nothing interrupts


@dataclass
class Stream:
    """Callers of one kind: a Poisson process.

    Attributes:
        rate: requests a second.
        patience: seconds until the deadline.
        until: seconds from the start when they stop.
    """

    caller: Caller
    rate: float
    patience: float = 1.0
    until: float = float("inf")
    asked: list[float] = field(default_factory=list)  # when each came
    good: list[float] = field(default_factory=list)  # those that were answered in time
    late: list[float] = field(default_factory=list)  # those that were let in and were not


@dataclass(order=True)
class Job:
    """One request in the engine."""

    due: float
    number: int
    came: float = field(compare=False)
    left: float = field(compare=False)
    stream: Stream = field(compare=False)
    ticket: Ticket = field(compare=False)
    room: ExitStack = field(compare=False)


class Simulation:
    """Runs streams against an engine.

    Args:
        rate: tokens a second; may be changed while it runs.
        streams: who asks.
        seed: of arrivals and of admission's coin.
        settings: of admission.
    """

    def __init__(
        self, rate: float, streams: list[Stream], *, seed: int = 1, settings: AdmissionSettings | None = None
    ) -> None:
        self.now = 0.0
        self.rate = rate
        self.admission = Admission(settings or AdmissionSettings(), clock=lambda: self.now, coin=Random(seed).random)
        self._streams = streams
        self._random = Random(seed)
        self._jobs: list[Job] = []
        self._count = 0

    def run(self, seconds: float) -> None:
        """Until then; what is in the engine at the end is finished."""
        arrivals = sorted((at, n) for n, stream in enumerate(self._streams) for at in self._times(stream, seconds))
        for at, n in arrivals:
            self._compute(at)
            self.now = max(self.now, at)
            self._arrive(self._streams[n], at)
        self._compute(float("inf"))

    def _times(self, stream: Stream, seconds: float) -> Iterator[float]:
        at = self._random.expovariate(stream.rate)
        while at < min(seconds, stream.until):
            yield at
            at += self._random.expovariate(stream.rate)

    def _compute(self, until: float) -> None:
        """Passes that begin before then, most urgent first; what is past its deadline is dropped before a pass."""
        while self._jobs and self.now < until:
            job = self._jobs[0]
            if self.now >= job.due:
                heapq.heappop(self._jobs)
                self._end(job, computed=0.0)
                continue
            tokens = min(PASS, job.left)
            self.now += tokens / self.rate
            job.left -= tokens
            if job.left <= 0:
                self._jobs.remove(job)
                heapq.heapify(self._jobs)
                self._end(job, computed=1.0)

    def _end(self, job: Job, computed: float) -> None:
        in_time = computed == 1.0 and self.now <= job.due
        (job.stream.good if in_time else job.stream.late).append(job.came)
        job.ticket.computed = computed
        job.room.close()

    def _arrive(self, stream: Stream, at: float) -> None:
        deadline = Deadline(at + stream.patience)
        stream.asked.append(at)
        with suppress(OverloadedError), ExitStack() as room:
            room.enter_context(self.admission.visit(stream.caller, BYTES, deadline))
            ticket = room.enter_context(self.admission.admit(stream.caller, deadline, PREFIX, [ITEM] * ITEMS))
            self._count += 1
            tokens = PREFIX + ITEM * ticket.items
            heapq.heappush(self._jobs, Job(deadline.at, self._count, at, tokens, stream, ticket, room.pop_all()))


class Batching(Simulation):
    """An engine that computes several requests side by side, each in the time that one takes alone.

    Args:
        slots: requests at a time.
        seconds: that each takes.
    """

    def __init__(self, slots: int, seconds: float, streams: list[Stream]) -> None:
        super().__init__(slots * COST / seconds, streams)
        self._slots = slots
        self._seconds = seconds
        self._running: list[tuple[float, Job]] = []

    def _compute(self, until: float) -> None:
        while True:
            while self._jobs and len(self._running) < self._slots:
                job = heapq.heappop(self._jobs)
                heapq.heappush(self._running, (self.now + self._seconds, job))
            if not self._running or self._running[0][0] > until:
                return
            self.now, job = heapq.heappop(self._running)
            self._end(job, computed=1.0)
