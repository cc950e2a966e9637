"""The circuit breaker."""

from __future__ import annotations

from dataclasses import dataclass

from service.cache.breaker import Breaker, BreakerState


@dataclass
class Clock:
    """Time that the test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def pause_of(breaker: Breaker, clock: Clock) -> float:
    """Let time pass until the breaker would probe; how long that took."""
    begun = clock.now
    while breaker.state is BreakerState.OPEN:
        clock.now += 0.01
    return clock.now - begun


def fail_probe(breaker: Breaker) -> None:
    """Probe, in vain."""
    assert breaker.take_probe()
    breaker.failed()


def test_one_failure_opens_it() -> None:
    """What failed costs its timeout once, then nothing."""
    breaker = Breaker(clock=Clock())
    states = [breaker.state]
    breaker.failed()
    states.append(breaker.state)
    assert states == [BreakerState.CLOSED, BreakerState.OPEN]
    assert not breaker.take_probe()


def test_one_probe_at_a_time_finds_out() -> None:
    """After the pause a single caller tries; its success closes the breaker."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    breaker.failed()
    assert 0.05 < pause_of(breaker, clock) < 0.2
    assert breaker.take_probe()
    assert not breaker.take_probe()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_it_tells_how_long_the_pause_lasts() -> None:
    """Who waits as long may probe then, and not before."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    assert breaker.remaining == 0.0
    breaker.failed()
    clock.now += breaker.remaining / 2.0
    assert breaker.state is BreakerState.OPEN
    clock.now += breaker.remaining + 0.001
    assert breaker.remaining == 0.0
    assert breaker.take_probe()


def test_pauses_double_up_to_a_bound() -> None:
    """What stays broken is asked less and less often."""
    clock = Clock()
    breaker = Breaker(0.1, 2.0, clock=clock)
    breaker.failed()
    pauses = []
    for _ in range(8):
        pauses.append(pause_of(breaker, clock))
        fail_probe(breaker)
    assert pauses[0] < 0.2
    assert pauses[3] > 0.5
    assert all(1.5 < pause < 2.5 for pause in pauses[-2:])
    assert breaker.opened == 9


def test_flapping_is_not_trusted_again_at_once() -> None:
    """A success resets the pause only after it has lasted."""
    clock = Clock()
    breaker = Breaker(0.1, 10.0, clock=clock)
    breaker.failed()
    for _ in range(5):
        pause_of(breaker, clock)
        assert breaker.take_probe()
        breaker.succeeded()
        clock.now += 0.05
        breaker.failed()
    assert pause_of(breaker, clock) > 1.0
    assert breaker.take_probe()
    breaker.succeeded()
    clock.now += 1_000.0
    breaker.failed()
    assert pause_of(breaker, clock) < 0.2


def test_failures_of_earlier_calls_do_not_lengthen_the_pause() -> None:
    """A hundred calls that time out together are one failure."""
    clock = Clock()
    breaker = Breaker(clock=clock)
    for _ in range(100):
        breaker.failed()
    assert breaker.opened == 1
    assert pause_of(breaker, clock) < 0.2


def test_it_may_begin_with_a_probe() -> None:
    """Nobody waits for the first connection."""
    breaker = Breaker(open_at_first=True, clock=Clock())
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.take_probe()
