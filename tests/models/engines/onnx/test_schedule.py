"""Which work a pass takes, without threads, arrays or time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.deadline import Deadline
from models.engines.onnx.batch import KeysValues, padded
from models.engines.onnx.runner import Decoding
from models.engines.onnx.schedule import Prefixes, Request, Rows, Schedule, Step

READY = KeysValues(4, {})


def request(
    lengths: list[int], *, at: float = 9e9, prefix: tuple[int, ...] = (1,), ready: bool = True, scope: str = ""
) -> Request:
    """A request of items with these lengths."""
    return Request(
        prefix,
        [(7,) * n for n in lengths],
        Deadline(at),
        scope,
        np.zeros((len(lengths), 4), np.float32),
        done=lambda: None,
        keys_values=READY if ready else None,
    )


def schedule(*works: Request | Step, budget: int = 128) -> Schedule:
    """A schedule with this work."""
    made = Schedule(budget)
    for work in works:
        made.add(work)
    return made


def taken(rows: object) -> list[tuple[Request, int]]:
    """Items of a pass over rows."""
    assert isinstance(rows, Rows)
    return list(rows.items)


def test_the_most_urgent_request_goes_first() -> None:
    """Earliest deadline first, whatever the order of arrival; arrival decides between equals."""
    late, first, second = request([16], at=3e9), request([16], at=2e9), request([16], at=2e9)
    rows = taken(schedule(late, first, second).take())
    assert rows == [(first, 0), (second, 0), (late, 0)]


def test_an_urgent_request_overtakes_a_large_one() -> None:
    """A large request is cut into passes: one that is due earlier waits for one pass, not for all."""
    large, urgent = request([16] * 50, at=3e9), request([16], at=2e9)
    queue = schedule(large)
    assert len(taken(queue.take())) == 8
    queue.add(urgent)
    assert taken(queue.take())[0] == (urgent, 0)


def test_a_request_waits_for_its_prefix() -> None:
    """The prefix comes first and is computed once; rows follow when it is there."""
    one = request([16], prefix=(5, 6), ready=False)
    queue = schedule(one)
    assert queue.take() == Prefixes((("", (5, 6)),))
    assert queue.take() is None
    assert queue.computed(one.key, READY) == [one]
    assert taken(queue.take()) == [(one, 0)]


def test_equal_prefixes_are_computed_once_per_scope() -> None:
    """Requests of one scope share a prefix; another scope's request computes its own."""
    works = [request([1], prefix=(5,), ready=False, scope=scope) for scope in ("a", "a", "b")]
    queue = schedule(*works)
    assert queue.take() == Prefixes((("a", (5,)), ("b", (5,))))
    assert queue.computed(("a", (5,)), READY) == works[:2]


def test_prefixes_merge_under_the_budget() -> None:
    """Prefixes of several requests share a pass until padding would exceed the budget."""
    works = [request([1], prefix=(n,) * 40, ready=False) for n in range(5)]
    found = schedule(*works, budget=100).take()
    assert isinstance(found, Prefixes)
    assert len(found.keys) == 2


def test_a_failed_prefix_takes_its_requests_out() -> None:
    """Who waited for a prefix that failed is reported and leaves the queue."""
    one = request([1], ready=False)
    queue = schedule(one)
    queue.take()
    assert queue.computed(one.key, None) == [one]
    assert queue.take() is None
    assert queue.tokens == 0


def test_an_item_longer_than_the_budget_gets_its_own_pass() -> None:
    """The budget bounds what is merged; it refuses nothing."""
    rows = taken(schedule(request([300, 300]), budget=128).take())
    assert len(rows) == 1


def test_little_work_is_spread_over_idle_workers() -> None:
    """Two idle workers get half each of what one pass could hold."""
    queue = schedule(request([64] * 16), budget=2048)
    assert [len(taken(queue.take(idle))) for idle in (2, 1)] == [8, 8]


def test_very_little_work_is_not_spread() -> None:
    """A pass has a fixed cost: a handful of tokens stays together."""
    assert len(taken(schedule(request([16] * 6), budget=2048).take(2))) == 6


def test_a_decoding_step_takes_its_turn() -> None:
    """Steps of explanations queue with requests, by deadline."""
    step = Step(Decoding((1,), READY), Deadline(2e9), done=lambda _: None)
    queue = schedule(request([16], at=3e9), step)
    assert queue.take() is step
    assert isinstance(queue.take(), Rows)


def test_what_is_past_its_deadline_leaves() -> None:
    """Expired work comes back and is never taken."""
    old, fresh = request([16], at=0.0), request([16])
    queue = schedule(old, fresh)
    assert queue.expired() == [old]
    assert taken(queue.take()) == [(fresh, 0)]


def test_removed_work_is_never_taken() -> None:
    """A cancelled request takes no more passes and no more room."""
    one = request([16, 16])
    queue = schedule(one)
    queue.remove(one)
    assert queue.take() is None
    assert queue.tokens == 0


lengths = st.lists(st.integers(1, 100), min_size=1, max_size=20)


@given(works=st.lists(lengths, min_size=1, max_size=6), budget=st.integers(16, 512), idle=st.integers(1, 4))
def test_every_item_is_taken_once_and_passes_fit(works: list[list[int]], budget: int, idle: int) -> None:
    """Nothing is lost, nothing is computed twice, and no pass of several items exceeds the budget."""
    requests = [request(w) for w in works]
    queue = schedule(*requests, budget=budget)
    seen: list[tuple[int, int]] = []
    while (rows := queue.take(idle)) is not None:
        items = taken(rows)
        assert len(items) == 1 or len(items) * max(padded(len(r.suffixes[i])) for r, i in items) <= budget
        seen += [(requests.index(r), i) for r, i in items]
    assert sorted(seen) == [(n, i) for n, w in enumerate(works) for i in range(len(w))]
    assert queue.tokens == 0
