"""The small parts on a clock moved by hand: bucket, fading sums, meter, fair share, throttle, ladder."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.admission.bucket import Bucket
from service.admission.fading import Fading
from service.admission.fair import SEEN_SECONDS, Fair
from service.admission.ladder import Ladder, Step
from service.admission.meter import Meter
from service.admission.throttle import Throttle
from service.admission.window import Window
from service.request import Priority


def test_a_bucket_pays_a_debt_before_it_opens() -> None:
    """A large request passes whole; the next waits until it is paid for."""
    bucket = Bucket(rate=10.0, burst=20.0, now=0.0)
    assert bucket.wait(0.0) == 0.0
    bucket.charge(50.0, 0.0)
    assert bucket.wait(0.0) == pytest.approx(3.1)
    assert bucket.wait(2.0) == pytest.approx(1.1)
    assert bucket.wait(3.1) == 0.0


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 30)), max_size=40))
def test_a_bucket_gives_no_more_than_its_rate_and_its_burst(steps: list[tuple[float, float]]) -> None:
    """Over any time, what passed is at most burst + rate x time, and the last request on top."""
    bucket = Bucket(rate=10.0, burst=20.0, now=0.0)
    now = passed = largest = 0.0
    for pause, amount in steps:
        now += pause
        if bucket.wait(now) == 0.0:
            bucket.charge(amount, now)
            passed, largest = passed + amount, max(largest, amount)
    assert passed <= 20.0 + 10.0 * now + largest + 1e-6


def test_a_window_forgets_all_at_once() -> None:
    """What is older than the window counts for nothing."""
    window = Window(2, seconds=0.8)
    window.add(10.0, 1.0, 2.0)
    window.add(10.5, 1.0, 0.0)
    assert window.read(10.7) == [2.0, 2.0]
    assert window.read(10.9) == [1.0, 0.0]
    assert window.read(20.0) == [0.0, 0.0]


def test_sums_fade_by_half_in_a_half_life() -> None:
    """And a clock that stands or goes back changes nothing."""
    sums = Fading(2, half_life=1.0, now=0.0)
    sums.add(0.0, 8.0, 4.0)
    assert sums.read(1.0) == [4.0, 2.0]
    assert sums.read(0.5) == [4.0, 2.0]


def test_the_rate_is_that_of_busy_time() -> None:
    """An idle night and the request after it do not look like a slow engine."""
    meter = Meter()
    assert meter.rate is None
    for start in (0.0, 10_000.0):
        meter.began(start)
        meter.ended(500.0, start + 0.5, idle=True)
    assert meter.since is None
    assert meter.rate == pytest.approx(1_000.0)


def test_requests_side_by_side_are_not_counted_twice() -> None:
    """Two at once, each a second long: twice the tokens in one second."""
    meter = Meter()
    meter.began(0.0)
    meter.began(0.0)
    meter.ended(1_000.0, 1.0, idle=False)
    meter.ended(1_000.0, 1.0, idle=True)
    assert meter.rate == pytest.approx(1_000.0)  # the second came back at the same moment: no time passed
    meter.began(5.0)
    meter.ended(1_000.0, 6.0, idle=True)
    assert meter.rate == pytest.approx(1_000.0)


def test_the_rate_follows_a_slower_engine_within_seconds_and_ignores_what_was_abandoned() -> None:
    """What came back without a score says nothing about the speed."""
    meter = Meter()
    now = 0.0
    for tokens in [100.0] * 100 + [50.0] * 40:
        meter.began(now)
        now += 0.1
        meter.ended(tokens, now, idle=False)
    assert meter.rate == pytest.approx(500.0, rel=0.1)
    before = meter.rate
    meter.ended(0.0, now + 60.0, idle=True)
    assert meter.rate == before


def test_a_share_goes_by_weight_among_those_who_ask_now() -> None:
    """Alone a tenant has all; one that stopped asking no longer counts."""
    fair = Fair({"gold": 3.0})
    fair.saw("gold", 0.0)
    assert fair.part("gold") == 1.0
    fair.saw("tin", 0.0)
    assert (fair.part("gold"), fair.part("tin")) == (0.75, 0.25)
    fair.saw("gold", SEEN_SECONDS + 0.1)
    assert fair.part("gold") == 1.0


def test_the_door_lets_in_what_is_answered_and_a_third_more() -> None:
    """Of a thousand a second, of which a hundred can be answered, some 130 a second are let in."""
    random = Random(1)
    throttle = Throttle(coin=random.random)
    let_in, room = 0, 0.0
    for n in range(10_000):
        now = n * 0.001
        away = throttle.refuses("busy", now)
        throttle.record("busy", now, let_in=not away)
        room += 0.1
        if not away:
            let_in += 1
            if room >= 1.0:
                room -= 1.0
            else:
                throttle.refused("busy", now)
        assert not throttle.refuses("calm", now)
        throttle.record("calm", now, let_in=True)
    assert 1_200 <= let_in <= 2_000


def test_the_door_opens_again_when_the_crowd_is_gone() -> None:
    """A few seconds later hardly anyone is turned away."""
    throttle = Throttle(coin=lambda: 0.5)
    for n in range(1_000):
        throttle.record("key", n * 0.001, let_in=False)
    assert throttle.refuses("key", 1.0)
    assert not throttle.refuses("key", 8.0)


def crowd(ladder: Ladder, start: float, seconds: float, refused: float) -> float:
    """A hundred requests a second, a share of which finds no room; the time after."""
    for n in range(int(seconds * 100)):
        ladder.record(start + n / 100, refused=int(n * refused) < int((n + 1) * refused))
        ladder.step(start + n / 100)
    return start + seconds


def test_steps_are_taken_by_pressure_and_taken_back_one_at_a_time() -> None:
    """Deep when most are refused; back at the top within two seconds of calm, never two steps at once."""
    ladder = Ladder(Step.FIRST_ITEMS, 0.0)
    assert ladder.step(0.0) is Step.EVERYTHING
    now = crowd(ladder, 0.0, 3.0, refused=0.9)
    assert ladder.step(now) is Step.FIRST_ITEMS
    seen = []
    for n in range(300):
        ladder.record(now + n / 100, refused=False)
        seen.append(ladder.step(now + n / 100))
    assert seen[-1] is Step.EVERYTHING
    assert all(a - b in {0, 1} for a, b in pairwise(seen))
    assert seen.index(Step.EVERYTHING) <= 200


def test_a_step_does_not_flicker() -> None:
    """Pressure just below what a step is taken at does not take it back."""
    ladder = Ladder(Step.FIRST_ITEMS, 0.0)
    now = crowd(ladder, 0.0, 2.0, refused=0.3)
    assert ladder.step(now) is Step.CACHE_ONLY
    for _ in range(10):
        now = crowd(ladder, now, 1.0, refused=0.15)
        assert ladder.step(now) is Step.CACHE_ONLY


def test_a_long_silence_ends_the_brown_out() -> None:
    """The first request after it is served in full."""
    ladder = Ladder(Step.FIRST_ITEMS, 0.0)
    now = crowd(ladder, 0.0, 2.0, refused=1.0)
    assert ladder.step(now + 60.0) is Step.EVERYTHING


def test_batch_gives_way_first_and_critical_last() -> None:
    """One step apart while there is pressure; nobody is below the deepest step that the operator allows."""
    ladder = Ladder(Step.CACHE_ONLY, 0.0)
    assert {ladder.step_for(p, 0.0) for p in Priority} == {Step.EVERYTHING}
    now = crowd(ladder, 0.0, 2.0, refused=0.12)
    assert [ladder.step_for(p, now) for p in (Priority.CRITICAL, Priority.DEFAULT, Priority.BATCH)] == [
        Step.EVERYTHING, Step.NO_RETRIEVAL, Step.CACHE_ONLY,
    ]  # fmt: skip
    now = crowd(ladder, now, 2.0, refused=0.9)
    assert ladder.step_for(Priority.BATCH, now) is Step.CACHE_ONLY
