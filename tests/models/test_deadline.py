"""Tests of the latency budget."""

from hypothesis import given
from hypothesis import strategies as st

from models.deadline import Deadline


def test_a_deadline_in_the_past_is_expired_and_has_nothing_left() -> None:
    """What is late has no time left, and never a negative one."""
    deadline = Deadline.after(-1.0)
    assert deadline.expired
    assert deadline.remaining() == 0.0


def test_a_deadline_ahead_has_no_more_than_it_was_given() -> None:
    """Time left never exceeds the budget."""
    deadline = Deadline.after(60_000.0)
    assert not deadline.expired
    assert 59.0 < deadline.remaining() <= 60.0


def test_never_does_not_expire() -> None:
    """Offline work has no deadline."""
    assert not Deadline.never().expired
    assert Deadline.never().remaining() == float("inf")


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1))
def test_order_is_urgency(milliseconds: list[float]) -> None:
    """The least deadline is the one due first, and never comes last."""
    deadlines = [Deadline(at=m) for m in milliseconds]
    assert min(deadlines).at == min(milliseconds)
    assert max([*deadlines, Deadline.never()]) == Deadline.never()
