"""Admission as the doors and the pipeline use it: `visit` at the door, `expect` before a prompt, `admit` after it."""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Final

from service.admission.fading import Fading
from service.admission.ladder import STEPS, Ladder, Step
from service.admission.ledger import Entry
from service.admission.queue import Bound, Queue
from service.admission.quota import Quotas
from service.admission.throttle import Throttle
from service.errors import OverloadedError, QuotaError
from service.request import Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from models.deadline import Deadline
    from service.admission.settings import AdmissionSettings
    from service.request import Caller

THROTTLED: Final = 0.5  # of a full queue; from there on the door turns callers away unseen
SURE: Final = 0.8  # of a cost guessed from the length of the text; what does not fit with so much less never does
SOONEST, LATEST = 0.05, 10.0  # seconds, of a hint when to come back
DENSITY_HALF_LIFE: Final = 10.0  # seconds


@dataclass(slots=True)
class Counts:
    """What became of requests since the start."""

    admitted: int = 0
    shortened: int = 0  # of those
    throttled: int = 0  # turned away at the door, unseen
    refused: int = 0  # behind it, for want of time, room or share
    over_bytes: int = 0
    over_quota: int = 0


@dataclass(slots=True)
class Ticket:
    """Room for one request's work in the engine.

    Attributes:
        items: how many of its items were taken on, the first ones.
        shed: whether others were left out for the brown-out alone.
        computed: share of their tokens that was computed; whoever holds the ticket sets it.
    """

    items: int
    shed: bool
    computed: float = 0.0


class Admission:
    """One process's. Not thread-safe: it belongs to the event loop.

    Args:
        workers: processes that share the configured bounds.
        clock: monotonic seconds, the clock of deadlines.
        coin: uniform in [0, 1).
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        coin: Callable[[], float] = random.random,
    ) -> None:
        self.counts = Counts()
        self.bytes_in_flight = 0
        self._settings = settings
        self._clock = clock
        self._coin = coin
        self._most_bytes = settings.in_flight_bytes // workers
        self._quotas = Quotas(
            Quota("", settings.requests_per_second, settings.tokens_per_second),
            burst_seconds=settings.burst_seconds,
            workers=workers,
        )
        self._throttle = Throttle(coin)
        self._ladder = Ladder(STEPS[settings.brown_out], clock())
        self._queue = Queue(settings.queue_tokens / workers, settings.weights)
        self._density = Fading(2, DENSITY_HALF_LIFE, clock())  # tokens, characters

    @property
    def rate(self) -> float | None:
        """Tokens a second that the engine finishes; None until it is known."""
        return self._queue.meter.rate

    @property
    def queued_tokens(self) -> float:
        """Tokens taken on and not finished."""
        return self._queue.tokens

    @property
    def queued_requests(self) -> int:
        """Requests taken on and not finished."""
        return self._queue.requests

    def step_for(self, caller: Caller) -> Step:
        """How much is done for this caller's requests now."""
        return self._ladder.step_for(caller.priority, self._clock())

    @contextmanager
    def visit(self, caller: Caller, size: int, deadline: Deadline) -> Iterator[None]:
        """The time that a request is in the house; enter it before its body is read.

        Args:
            caller: who asks.
            size: bytes of the body as declared, or the most that it can have.
            deadline: the latest that the call can have, as far as is known yet.

        Raises:
            QuotaError: the caller is over its quota.
            OverloadedError: no room for the body, or hardly a chance of an answer in time.
        """
        now = self._clock()
        try:
            self._quotas.knock(caller, now)
        except QuotaError:
            self.counts.over_quota += 1
            raise
        if self.bytes_in_flight and self.bytes_in_flight + size > self._most_bytes:
            self.counts.over_bytes += 1
            raise self._overloaded("too many bytes of requests are under way", SOONEST)
        key = (caller.tenant, caller.priority)
        self._queue.fair.saw(caller.tenant, now)
        away = (
            self._settings.enabled
            and self._queue.crowded(caller, deadline, now) > THROTTLED
            and self._throttle.refuses(key, now)
        )
        self._throttle.record(key, now, let_in=not away)
        if away:
            self.counts.throttled += 1
            self._ladder.record(now, refused=True)
            raise self._overloaded("few requests like this one are answered in time now", self._queue.seconds())
        self.bytes_in_flight += size
        try:
            yield
        except OverloadedError:
            now = self._clock()
            self._ladder.record(now, refused=True)
            self._throttle.refused(key, now)
            raise
        else:
            self._ladder.record(self._clock(), refused=False)
        finally:
            self.bytes_in_flight -= size

    def expect(self, caller: Caller, deadline: Deadline, characters: Sequence[int]) -> None:
        """Refuse what `admit` would refuse for certain, before its prompt is written.

        Args:
            caller: who asks.
            deadline: by which the engine must be done.
            characters: of each item, that will become tokens.

        Raises:
            OverloadedError: as `admit`.
        """
        now = self._clock()
        tokens, seen = self._density.read(now)
        if seen:
            density = SURE * tokens / seen
            self._fitting(caller, deadline, [density * length for length in accumulate(characters)], now)

    @contextmanager
    def admit(
        self,
        caller: Caller,
        deadline: Deadline,
        prefix: int,
        items: Sequence[int],
        *,
        then: int = 0,
        characters: int = 0,
    ) -> Iterator[Ticket]:
        """Room in the engine for as long as the context is open.

        Args:
            caller: who asks.
            deadline: by which the engine must be done.
            prefix: tokens that the items share.
            items: tokens of each, at least one.
            then: tokens that the same call will ask for after; see `hold`.
            characters: of the text that became these tokens.

        Raises:
            OverloadedError: it would end late, or make late what was taken on before.
        """
        now = self._clock()
        costs = [prefix + tokens for tokens in accumulate(items)]
        if characters:
            self._density.add(now, costs[-1], characters)
        taken = self._fitting(caller, deadline, [cost + then for cost in costs], now)
        self.counts.admitted += 1
        self.counts.shortened += taken < len(items)
        entry = self._take(caller, deadline, costs[taken - 1], now)
        shed = taken < len(items) and self._ladder.step_for(caller.priority, now) is Step.FIRST_ITEMS
        ticket = Ticket(taken, shed)
        try:
            yield ticket
        finally:
            self._queue.give(entry, self._clock(), ticket.computed)

    @contextmanager
    def hold(self, caller: Caller, deadline: Deadline, tokens: int) -> Iterator[None]:
        """Room that was promised with `then`. Its cost is a guess, so it says nothing about the rate."""
        entry = self._take(caller, deadline, tokens, self._clock())
        try:
            yield
        finally:
            self._queue.give(entry, self._clock(), 0.0)

    def _take(self, caller: Caller, deadline: Deadline, tokens: float, now: float) -> Entry:
        entry = Entry(deadline.at, tokens, caller.tenant)
        self._quotas.charge(caller, tokens, now)
        self._queue.take(entry, now)
        return entry

    def _fitting(self, caller: Caller, deadline: Deadline, costs: Sequence[float], now: float) -> int:
        """How many of the first items to take on; their costs are cumulative."""
        if not self._settings.enabled:
            return len(costs)
        room = self._queue.room(caller, deadline, now)
        most = len(costs)
        least = bisect_right(costs, self._queue.alone(caller, deadline, now))
        if self._ladder.step_for(caller.priority, now) is Step.FIRST_ITEMS:
            most = least = ceil(most * self._settings.items_share)
        elif least < most:  # more than even an idle engine can do: the answer will be of its first items
            least = ceil(least * self._settings.items_share)
        fitting = min(most, bisect_right(costs, room.tokens))
        if self._queue.idle:
            return max(1, fitting)  # always something: how else would a rate be found out that was measured too low
        if fitting < max(1, least):
            self.counts.refused += 1
            seconds = (costs[max(1, least) - 1] - room.tokens) / (self._queue.meter.rate or 1.0)
            raise self._overloaded(room.bound, seconds)
        return fitting

    def _overloaded(self, why: Bound | str, seconds: float) -> OverloadedError:
        """Callers are sent away for different times, so that they do not come back together."""
        hint = min(LATEST, max(SOONEST, seconds)) * (1.0 + self._coin())
        return OverloadedError(f"no capacity now: {why}", retry_after_ms=ceil(hint * 1000.0))
