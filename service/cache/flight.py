"""Single flight: while one request has an item computed, equal ones wait for it instead of asking the engine too."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.engines.port import ItemStatus
from service.rows import OK, unscored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from models.deadline import Deadline
    from service.rows import Rows


@dataclass(frozen=True, slots=True)
class _Flight:
    """One computation under way.

    Attributes:
        deadline: it is due by then.
        places: of its keys in `rows`.
        rows: gets its records, whatever their status; None when it failed.
    """

    deadline: Deadline
    places: dict[bytes, int]
    rows: asyncio.Future[Rows | None]


class Flights:
    """Computations under way in this process, by key."""

    def __init__(self) -> None:
        self.joined = 0  # items that waited for another request's computation and got it
        self._flights: dict[bytes, _Flight] = {}

    async def run(
        self,
        keys: Sequence[bytes],
        compute: Callable[[list[int]], Awaitable[Rows]],
        deadline: Deadline,
        *,
        tiers: int,
        grace: float = 0.0,
    ) -> Rows:
        """Records for M keys: of those that nobody computes, and of those that are being computed for another.

        A request joins only a computation that is due no later than itself: a hurried caller does not wait for work
        that the engine will take up last. It waits until its own deadline and the grace; one whose leader failed, or
        left, computes for itself.

        Args:
            keys: M keys; equal ones are computed once.
            compute: records for some positions of `keys`, in their order.
            deadline: of the request that asks.
            tiers: K.
            grace: seconds of patience past the deadline.

        Returns:
            M records; EXPIRED where another's computation did not end in time.

        Raises:
            Whatever `compute` does.
        """
        places: dict[bytes, list[int]] = {}
        for position, key in enumerate(keys):
            places.setdefault(key, []).append(position)
        joined = {key: flight for key in places if (flight := self._joinable(key, deadline))}
        led = [key for key in places if key not in joined]
        computed = await self._lead(led, places, compute, deadline) if led else None
        if computed is not None and len(led) == len(keys):
            return computed  # as nearly always: no key is anybody else's, none comes twice
        found = {} if computed is None else _by_key(led, computed)
        if joined:
            shared, failed = await _follow(joined, deadline, grace)
            self.joined += len(shared)
            found |= shared
            if failed and not deadline.expired:
                found |= _by_key(failed, await self._lead(failed, places, compute, deadline))
        rows = unscored(len(keys), tiers, ItemStatus.EXPIRED)
        for key, row in found.items():
            rows[places[key]] = row
        return rows

    def _joinable(self, key: bytes, deadline: Deadline) -> _Flight | None:
        flight = self._flights.get(key)
        return flight if flight is not None and flight.deadline <= deadline else None

    async def _lead(
        self,
        keys: list[bytes],
        places: dict[bytes, list[int]],
        compute: Callable[[list[int]], Awaitable[Rows]],
        deadline: Deadline,
    ) -> Rows:
        numbers = {key: n for n, key in enumerate(keys)}
        flight = _Flight(deadline, numbers, asyncio.get_running_loop().create_future())
        self._flights.update(dict.fromkeys(keys, flight))
        rows: Rows | None = None
        try:
            rows = await compute([places[key][0] for key in keys])
            return rows
        finally:
            for key in keys:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.rows.set_result(rows)


async def _follow(
    joined: dict[bytes, _Flight], deadline: Deadline, grace: float
) -> tuple[dict[bytes, Rows], list[bytes]]:
    """What the leaders found in time, and the keys of those that failed."""
    remaining = deadline.remaining() + grace
    waiting: Iterable[asyncio.Future[Rows | None]] = {flight.rows for flight in joined.values()}
    await asyncio.wait(waiting, timeout=None if remaining == float("inf") else remaining)
    found, failed = {}, []
    for key, flight in joined.items():
        if not flight.rows.done():
            continue
        rows, place = flight.rows.result(), flight.places[key]
        if rows is not None and rows["status"][place] == OK:
            found[key] = rows[place : place + 1]
        else:
            failed.append(key)
    return found, failed


def _by_key(keys: Sequence[bytes], rows: Rows) -> dict[bytes, Rows]:
    return {key: rows[n : n + 1] for n, key in enumerate(keys)}
