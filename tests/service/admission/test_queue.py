"""The ledger's arithmetic against a plain simulation of an engine, and each bound of the room."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.deadline import Deadline
from service.admission.fair import SEEN_SECONDS
from service.admission.ledger import Entry, Ledger
from service.admission.queue import COLD_RATE, FILL, Bound, Queue
from service.request import Caller, Priority

WORK = st.lists(st.tuples(st.floats(0.1, 5.0), st.integers(1, 500)), max_size=12)  # due, tokens


def ends(entries: list[Entry], rate: float) -> dict[int, float]:
    """When each entry ends on an engine that computes one after the other, earliest deadline first."""
    now = 0.0
    found = {}
    for entry in sorted(entries, key=lambda e: e.due):  # stable: equal deadlines by arrival
        now += entry.tokens / rate
        found[id(entry)] = now
    return found


@given(WORK, st.floats(0.1, 5.0), st.integers(1, 500))
def test_the_tokens_ahead_say_when_one_more_ends(work: list[tuple[float, int]], due: float, tokens: int) -> None:
    """The same moment as a simulation of the engine gives."""
    ledger = Ledger()
    entries = [Entry(at, size, "t") for at, size in work]
    for entry in entries:
        ledger.add(entry)
    new = Entry(due, tokens, "t")
    assert ledger.ahead(due) + tokens == pytest.approx(ends([*entries, new], 1.0)[id(new)])


@given(WORK, st.floats(0.1, 5.0))
def test_the_slack_is_what_can_be_put_in_front_without_making_anyone_late(
    work: list[tuple[float, int]], due: float
) -> None:
    """With as much as the slack nobody who was in time is late; with more somebody is."""
    rate = 400.0
    ledger = Ledger()
    entries = [Entry(at, size, "t") for at, size in work]
    for entry in entries:
        ledger.add(entry)
    before = ends(entries, rate)
    in_time = [e for e in entries if before[id(e)] <= e.due]
    slack = ledger.slack(due, 0.0, rate)

    def late(tokens: float) -> int:
        after = ends([*entries, Entry(due, tokens, "t")], rate)
        return sum(after[id(e)] > e.due + 1e-9 for e in in_time)

    if slack == math.inf:
        assert late(1e9) == 0
    else:
        assert late(slack) == 0
        assert late(slack + 1.0) > 0


def test_the_ledger_forgets_what_came_back() -> None:
    """Tokens and tenants add up to nothing at the end, whatever the order."""
    random = Random(1)
    ledger = Ledger()
    entries = [Entry(random.random(), random.random() * 100, random.choice("ab")) for _ in range(100)]
    for entry in entries:
        ledger.add(entry)
    assert ledger.held("a") + ledger.held("b") == pytest.approx(ledger.tokens)
    random.shuffle(entries)
    for entry in entries:
        ledger.remove(entry)
    assert (len(ledger), ledger.tokens) == (0, 0.0)
    assert ledger.held("a") == pytest.approx(0.0, abs=1e-9)


def queue_at(rate: float, **weights: float) -> Queue:
    """A queue that has measured this rate, at time 0."""
    queue = Queue(100_000.0, weights)
    entry = Entry(1.0, rate, "t")
    queue.take(entry, -1.0)
    queue.give(entry, 0.0, 1.0)
    return queue


def hold(queue: Queue, tokens: float, due: float, tenant: str = "t") -> None:
    """Take something on at time 0."""
    queue.take(Entry(due, tokens, tenant), 0.0)


ME = Caller("me")


def test_an_unknown_engine_gets_little_until_it_has_shown_its_rate() -> None:
    """The first burst after the start is not let in as if the engine were infinitely fast."""
    queue = Queue(100_000.0, {})
    most = COLD_RATE * FILL[Priority.DEFAULT]
    assert queue.room(ME, Deadline(1.0), 0.0).tokens == most
    hold(queue, most, 1.0)
    assert queue.room(ME, Deadline(1.0), 0.0).tokens == 0.0
    assert queue.room(ME, Deadline(2.0), 0.0).tokens == most  # who has more time may wait behind them


@pytest.mark.parametrize("priority", list(Priority))
def test_the_room_is_what_ends_in_time(priority: Priority) -> None:
    """Less what is ahead, less what is kept back for more important callers."""
    queue = queue_at(1_000.0)
    caller = Caller("me", priority)
    assert queue.room(caller, Deadline(2.0), 0.0).tokens == pytest.approx(2_000.0 * FILL[priority])
    hold(queue, 300.0, due=1.0)
    room = queue.room(caller, Deadline(2.0), 0.0)
    assert room.tokens == pytest.approx(2_000.0 * FILL[priority] - 300.0)
    assert room.bound is Bound.TIME


def test_an_urgent_request_does_not_make_others_late() -> None:
    """What was taken on with a later deadline keeps its place in time."""
    queue = queue_at(1_000.0)
    hold(queue, 1_600.0, due=2.0)
    room = queue.room(ME, Deadline(1.9), 0.0)
    assert room.bound is Bound.OTHERS
    assert room.tokens == pytest.approx(2_000.0 * FILL[Priority.CRITICAL] - 1_600.0)


def test_progress_since_the_last_answer_counts() -> None:
    """Half a second later half a second's tokens are done, at most those of the first in line."""
    queue = queue_at(1_000.0)
    hold(queue, 400.0, due=10.0)
    at_once = queue.room(ME, Deadline(11.0), 0.0).tokens
    assert queue.room(ME, Deadline(11.25), 0.25).tokens == pytest.approx(at_once + 250.0)
    assert queue.room(ME, Deadline(13.0), 2.0).tokens == pytest.approx(at_once + 400.0)


def test_a_queue_is_never_longer_than_its_cap() -> None:
    """Whatever the deadlines allow."""
    queue = queue_at(1_000.0)
    hold(queue, 99_990.0, due=1e9)
    assert queue.room(ME, Deadline.never(), 0.0) == (10.0, Bound.QUEUE)


def test_a_greedy_tenant_is_held_to_its_part_while_the_queue_is_contended() -> None:
    """One that got more than it is due gets no more than its part; the other does, and so does it when it is alone."""
    queue = queue_at(1_000.0)
    greedy = Caller("greedy")
    full = 10.0 * 1_000.0 * FILL[Priority.DEFAULT]
    queue.fair.saw("greedy", 0.0)
    queue.fair.saw("me", 0.0)
    hold(queue, 0.3 * full, 10.0, "greedy")
    assert queue.room(greedy, Deadline(10.0), 0.0).bound is Bound.TIME
    hold(queue, 0.1 * full, 10.0, "greedy")
    assert queue.room(greedy, Deadline(10.0), 0.0) == (0.0, Bound.SHARE)
    assert queue.room(ME, Deadline(10.0), 0.0).tokens == pytest.approx(0.6 * full)
    queue.fair.saw("greedy", SEEN_SECONDS + 0.1)
    assert queue.room(greedy, Deadline(10.0), 0.0).bound is Bound.TIME
