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


def test_a_stage_takes_a_share_of_what_is_left_and_never_more_than_its_own_time() -> None:
    """A stage's deadline lies within the call's, whichever of the bounds is the tightest."""
    call = Deadline.after(1_000.0)
    assert 0.09 < call.within(0.1).remaining() <= 0.1
    assert 0.24 < call.within(60.0, share=0.25).remaining() <= 0.25
    assert call.within(60.0) == call
    assert 0.09 < Deadline.never().within(0.1, share=0.25).remaining() <= 0.1
    assert Deadline.after(-5.0).within(1.0).expired


def test_a_stage_leaves_time_for_what_comes_after() -> None:
    """The engine's deadline is earlier than the answer's."""
    assert Deadline(5.0).before(2.0) == Deadline(3.0)
    assert Deadline.never().before(2.0) == Deadline.never()
