"""The facade: what is counted, what is given back, what a refusal says."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from models.deadline import Deadline
from service.admission.admission import Admission
from service.admission.queue import FILL
from service.admission.settings import AdmissionSettings
from service.errors import InvalidRequestError, OverloadedError, QuotaError
from service.request import Caller, Quota

ME = Caller("me")


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def admission_at(clock: Clock, rate: float, **settings: object) -> Admission:
    """Admission that has measured this rate."""
    admission = Admission(AdmissionSettings.model_validate(settings), clock=clock, coin=lambda: 0.0)
    with admission.admit(ME, Deadline.never(), 0, [int(rate)], characters=int(rate) * 4) as ticket:
        clock.now += 1.0
        ticket.computed = 1.0
    assert admission.rate == pytest.approx(rate)
    return admission


def test_bytes_in_flight_are_bounded_and_given_back_whatever_happens(clock: Clock) -> None:
    """The first body may be of any size; a failing request does not keep its bytes."""
    admission = Admission(AdmissionSettings(in_flight_bytes=100), clock=clock)
    with admission.visit(ME, 500, Deadline.never()):
        assert admission.bytes_in_flight == 500
        with pytest.raises(OverloadedError, match="bytes"), admission.visit(ME, 1, Deadline.never()):
            pass
    with pytest.raises(InvalidRequestError), admission.visit(ME, 500, Deadline.never()):
        raise InvalidRequestError("bad")
    assert admission.bytes_in_flight == 0
    assert admission.counts.over_bytes == 1


def test_workers_divide_the_bounds(clock: Clock) -> None:
    """Each of two processes takes half of the bytes and of the tokens."""
    settings = AdmissionSettings(in_flight_bytes=100, queue_tokens=1_000)
    admission = Admission(settings, workers=2, clock=clock)
    with admission.visit(ME, 30, Deadline.never()):
        with pytest.raises(OverloadedError), admission.visit(ME, 30, Deadline.never()):
            pass
        with (
            admission.admit(ME, Deadline.never(), 0, [400]),
            pytest.raises(OverloadedError, match="queued"),
            admission.admit(ME, Deadline.never(), 0, [200]),
        ):
            pass


def test_what_would_end_late_is_refused_before_anything_is_computed(clock: Clock) -> None:
    """With a hint when to come back, between one and two times as long as the queue needs."""
    admission = admission_at(clock, 1_000.0)
    with admission.admit(ME, Deadline(clock.now + 2.0), 100, [1_000]):
        with (
            pytest.raises(OverloadedError, match="deadline") as refused,
            admission.admit(ME, Deadline(clock.now + 2.0), 100, [1_000]),
        ):
            pass
        assert refused.value.retry_after_ms == pytest.approx(2_200 - 2_000 * FILL[ME.priority], abs=2)
        assert admission.queued_tokens == 1_100
    assert admission.queued_tokens == 0
    assert admission.counts.refused == 1


def test_what_is_certain_to_be_refused_is_so_before_its_prompt_is_written(clock: Clock) -> None:
    """From the length of its text and the tokens that texts became of late."""
    admission = admission_at(clock, 1_000.0)  # four characters a token
    with admission.admit(ME, Deadline(clock.now + 2.0), 0, [1_200]):
        admission.expect(ME, Deadline(clock.now + 2.0), [400])
        with pytest.raises(OverloadedError):
            admission.expect(ME, Deadline(clock.now + 2.0), [4_000])


def test_a_list_that_no_idle_engine_can_finish_is_answered_as_far_as_it_fits(clock: Clock) -> None:
    """Coming back later would not help; the first items are the ones that its caller wants most."""
    admission = admission_at(clock, 1_000.0)
    admission.expect(ME, Deadline(clock.now + 1.0), [400] * 50)
    with admission.admit(ME, Deadline(clock.now + 1.0), 50, [100] * 50) as ticket:
        assert (ticket.items, ticket.shed) == ((1_000 * FILL[ME.priority] - 50) // 100, False)
    assert admission.counts.shortened == 1


def test_an_idle_engine_always_gets_something(clock: Clock) -> None:
    """A rate that was measured far too low is found out by trying."""
    admission = admission_at(clock, 1.0)
    with admission.admit(ME, Deadline(clock.now + 1.0), 50, [100] * 5) as ticket:
        assert ticket.items == 1
        clock.now += 0.1
        ticket.computed = 1.0
    assert admission.rate is not None
    assert admission.rate > 50.0


def test_what_a_call_will_want_later_is_counted_from_the_start(clock: Clock) -> None:
    """An explanation is refused before its item is scored, not after."""
    admission = admission_at(clock, 1_000.0)
    with admission.admit(ME, Deadline(clock.now + 2.0), 0, [100]):
        with pytest.raises(OverloadedError), admission.admit(ME, Deadline(clock.now + 2.0), 0, [100], then=1_400):
            pass
        with admission.admit(ME, Deadline(clock.now + 2.0), 0, [100], then=1_000):
            pass
        with admission.hold(ME, Deadline(clock.now + 2.0), 1_000):
            assert admission.queued_tokens == 1_100


def test_over_quota_is_not_overload(clock: Clock) -> None:
    """It is the caller's to mend, and no pressure that others feel."""
    admission = Admission(AdmissionSettings(), clock=clock)
    caller = Caller("a", quotas=(Quota("a", requests_per_second=1.0),))
    with ExitStack() as room:
        for _ in range(2):
            room.enter_context(admission.visit(caller, 1, Deadline.never()))
        for _ in range(100):
            with pytest.raises(QuotaError), admission.visit(caller, 1, Deadline.never()):
                pass
    assert admission.counts.over_quota == 100
    assert admission.step_for(caller) == 0


def test_tokens_are_charged_when_they_are_computed(clock: Clock) -> None:
    """A call that was answered from the cache is not asked for any."""
    admission = Admission(AdmissionSettings(tokens_per_second=10.0, burst_seconds=1.0), clock=clock)
    for _ in range(5):
        with admission.visit(ME, 1, Deadline.never()):
            pass
    with admission.visit(ME, 1, Deadline.never()), admission.admit(ME, Deadline.never(), 0, [100]):
        pass
    with pytest.raises(QuotaError), admission.visit(ME, 1, Deadline.never()):
        pass


def test_switched_off_it_takes_everything_and_keeps_quotas_and_bytes(clock: Clock) -> None:
    """The engine's own order is then all that there is."""
    admission = admission_at(clock, 10.0, enabled=False, requests_per_second=1.0)
    with ExitStack() as room:
        for _ in range(50):
            ticket = room.enter_context(admission.admit(ME, Deadline(clock.now + 0.1), 0, [1_000] * 3))
            assert ticket.items == 3
    with ExitStack() as room:
        for _ in range(2):
            room.enter_context(admission.visit(ME, 1, Deadline.never()))
        with pytest.raises(QuotaError):
            room.enter_context(admission.visit(ME, 1, Deadline.never()))
