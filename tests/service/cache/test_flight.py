"""Single flight."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.deadline import Deadline
from models.engines.port import ItemStatus
from service.cache.flight import Flights
from service.rows import OK, STATUSES, Rows, unscored

if TYPE_CHECKING:
    from collections.abc import Sequence

EXPIRED = STATUSES.index(ItemStatus.EXPIRED)
SOON, LATER = Deadline.after(3_600_000.0), Deadline.after(7_200_000.0)


@dataclass
class Work:
    """Computes rows that hold their key's number; waits for `go`, and fails as told."""

    keys: list[bytes]
    raises: Exception | None = None
    status: ItemStatus = ItemStatus.OK
    go: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[list[int]] = field(default_factory=list)

    async def __call__(self, positions: Sequence[int]) -> Rows:
        """Rows for some of the keys."""
        self.asked.append(list(positions))
        await self.go.wait()
        if self.raises:
            raise self.raises
        rows = unscored(len(positions), 2, self.status)
        if self.status is ItemStatus.OK:
            rows["logprobs"] = np.array([[self.keys[n][0]] * 2 for n in positions], np.float32)
        return rows


def numbers(rows: Rows) -> list[float]:
    """What `Work` wrote."""
    assert (rows["status"] == OK).all()
    return [float(row) for row in rows["logprobs"][:, 0]]


def start(flights: Flights, work: Work, deadline: Deadline = SOON) -> asyncio.Task[Rows]:
    """Run a request in a task."""
    return asyncio.create_task(flights.run(work.keys, work, deadline, tiers=2))


async def test_equal_keys_are_computed_once() -> None:
    """A second request computes only what the first does not."""
    flights = Flights()
    one, other = Work([b"a", b"b"]), Work([b"b", b"c", b"a"])
    leader, follower = start(flights, one), start(flights, other, LATER)
    await asyncio.sleep(0)
    other.go.set()
    await asyncio.sleep(0.01)
    assert not follower.done()
    one.go.set()
    assert numbers(await leader) == [97, 98]
    assert numbers(await follower) == [98, 99, 97]
    assert (one.asked, other.asked, flights.joined) == ([[0, 1]], [[1]], 2)
    assert not flights._flights


async def test_duplicates_within_a_request_are_computed_once() -> None:
    """Equal content under different ids costs one row."""
    work = Work([b"a", b"b", b"a", b"a"])
    work.go.set()
    assert numbers(await Flights().run(work.keys, work, SOON, tiers=2)) == [97, 98, 97, 97]
    assert work.asked == [[0, 1]]


@pytest.mark.parametrize("failure", ["raises", "cancelled", "expired"])
async def test_a_follower_computes_for_itself_when_its_leader_does_not_finish(failure: str) -> None:
    """Nobody's failure, disconnect or shorter deadline becomes another's."""
    flights = Flights()
    one, other = Work([b"a"]), Work([b"a"])
    leader = start(flights, one)
    await asyncio.sleep(0)
    followers = [start(flights, other, LATER) for _ in range(3)]
    await asyncio.sleep(0)
    other.go.set()
    if failure == "raises":
        one.raises = RuntimeError("engine")
    elif failure == "expired":
        one.status = ItemStatus.EXPIRED
    if failure == "cancelled":
        leader.cancel()
    one.go.set()
    results = await asyncio.gather(*followers)
    assert [numbers(rows) for rows in results] == [[97.0]] * 3
    await asyncio.wait([leader])
    assert leader.cancelled() == (failure == "cancelled")
    if failure == "raises":
        assert leader.exception() is one.raises
    assert flights.joined == 0
    assert not flights._flights


async def test_a_follower_waits_no_longer_than_its_own_deadline() -> None:
    """A leader that hangs costs a follower its deadline and no more; the item comes back expired."""
    flights = Flights()
    hanging = Work([b"a"])
    due = Deadline.after(30.0)
    leader = start(flights, hanging, due)
    await asyncio.sleep(0)
    other = Work([b"a", b"b"])
    other.go.set()
    rows = await flights.run(other.keys, other, due, tiers=2)
    assert rows["status"].tolist() == [EXPIRED, OK]
    assert other.asked == [[1]]
    leader.cancel()


async def test_a_hurried_request_does_not_wait_for_patient_work() -> None:
    """The engine takes the earliest deadline first, so the patient leader's work may come last."""
    flights = Flights()
    patient, hurried, third = Work([b"a"]), Work([b"a"]), Work([b"a"])
    slow = start(flights, patient, LATER)
    await asyncio.sleep(0)
    quick = start(flights, hurried, SOON)
    await asyncio.sleep(0)
    joiner = start(flights, third, SOON)
    hurried.go.set()
    assert numbers(await quick) == numbers(await joiner) == [97]
    assert (len(hurried.asked), len(third.asked)) == (1, 0)
    assert not slow.done()
    patient.go.set()
    assert numbers(await slow) == [97]
    assert not flights._flights


async def test_only_finished_items_are_shared() -> None:
    """The leader may keep an expired row; a follower must not get it."""
    flights = Flights()
    leading = Work([b"a"], status=ItemStatus.EXPIRED)
    leader = start(flights, leading)
    await asyncio.sleep(0)
    other = Work([b"a"])
    other.go.set()
    follower = start(flights, other)
    await asyncio.sleep(0)
    leading.go.set()
    assert (await leader)["status"].tolist() == [EXPIRED]
    assert numbers(await follower) == [97]


async def test_what_a_request_computes_is_its_own_error() -> None:
    """The leader's exception reaches the leader."""
    work = Work([b"a"], raises=RuntimeError("engine"))
    work.go.set()
    with pytest.raises(RuntimeError, match="engine"):
        await Flights().run(work.keys, work, SOON, tiers=2)
