"""What admission promises, against a simulated engine: goodput holds, promises are kept, nobody starves."""

from __future__ import annotations

import pytest

from service.admission.ladder import Step
from service.admission.settings import AdmissionSettings
from service.request import Caller, Priority
from tests.service.admission.simulation import COST, Batching, Simulation, Stream

RATE = 10.0 * COST  # ten requests a second
SECONDS = 60.0


def goodput(stream: Stream, since: float = 2.0, until: float = SECONDS) -> float:
    """Requests a second answered in time."""
    return sum(since <= at < until for at in stream.good) / (until - since)


@pytest.mark.parametrize("load", [2, 5, 10])
def test_goodput_holds_under_overload_and_what_is_let_in_ends_in_time(load: int) -> None:
    """The engine stays as busy with good answers as at its peak; hardly anything that is let in is late."""
    stream = Stream(Caller(), rate=10.0 * load)
    Simulation(RATE, [stream]).run(SECONDS)
    assert goodput(stream) >= 9.0
    assert len(stream.late) <= 0.01 * len(stream.good)


def test_without_admission_earliest_deadline_first_collapses() -> None:
    """The reason for it: the engine drops what has expired and still computes what is about to."""
    stream = Stream(Caller(), rate=30.0)
    Simulation(RATE, [stream], settings=AdmissionSettings(enabled=False)).run(SECONDS)
    assert goodput(stream) <= 3.0


@pytest.mark.parametrize("seed", range(5))
def test_mixed_deadlines_do_not_make_each_other_late(seed: int) -> None:
    """Impatient callers go first, and only as far as the patient ones still end in time."""
    streams = [Stream(Caller(), rate=20.0, patience=p) for p in (0.3, 0.6, 2.0)]
    Simulation(RATE, streams, seed=seed).run(SECONDS)
    assert sum(map(goodput, streams)) >= 9.0
    assert sum(len(s.late) for s in streams) <= 0.02 * sum(len(s.good) for s in streams)


def test_light_load_is_let_in() -> None:
    """At half the capacity next to nothing is refused."""
    stream = Stream(Caller(), rate=5.0)
    Simulation(RATE, [stream]).run(SECONDS)
    assert len(stream.good) >= 0.99 * len(stream.asked)


@pytest.mark.parametrize("seed", range(5))
def test_a_greedy_tenant_cannot_starve_another(seed: int) -> None:
    """One that asks for less than its share gets nearly all of it beside one that asks for ten times the capacity."""
    greedy, meek = Stream(Caller("greedy"), rate=100.0), Stream(Caller("meek"), rate=2.0)
    Simulation(RATE, [greedy, meek], seed=seed).run(SECONDS)
    assert len(meek.good) >= 0.9 * len(meek.asked)
    assert goodput(greedy) + goodput(meek) >= 9.0


def test_two_greedy_tenants_share_by_weight() -> None:
    """Three to one, as configured, and the engine stays busy."""
    gold, tin = Stream(Caller("gold"), rate=60.0), Stream(Caller("tin"), rate=60.0)
    Simulation(RATE, [gold, tin], settings=AdmissionSettings(weights={"gold": 3.0})).run(SECONDS)
    assert 2.0 <= goodput(gold) / goodput(tin) <= 4.0
    assert goodput(gold) + goodput(tin) >= 9.0


def test_batch_gives_way_and_critical_goes_first() -> None:
    """Batch takes what is left over, critical gets all that it asks for."""
    streams = {p: Stream(Caller(priority=p), rate=r) for p, r in zip(Priority, (3.0, 20.0, 100.0), strict=True)}
    Simulation(RATE, list(streams.values())).run(SECONDS)
    critical, default, batch = (streams[p] for p in (Priority.CRITICAL, Priority.DEFAULT, Priority.BATCH))
    assert len(critical.good) >= 0.9 * len(critical.asked)
    assert goodput(default) >= 4.0
    assert goodput(batch) <= 0.1 * goodput(default)


def test_batch_alone_gets_the_whole_engine() -> None:
    """Giving way costs nothing when there is nobody to give way to."""
    batch = Stream(Caller(priority=Priority.BATCH), rate=100.0)
    Simulation(RATE, [batch]).run(SECONDS)
    assert goodput(batch) >= 8.5


def test_normal_again_within_two_seconds() -> None:
    """After ten times the load everything is answered in full again, and the brown-out is over."""
    crowd, calm = Stream(Caller(), rate=100.0, until=30.0), Stream(Caller("calm"), rate=5.0)
    simulation = Simulation(RATE, [crowd, calm])
    simulation.run(SECONDS)
    after = [at for at in calm.asked if at >= 32.0]
    assert len([at for at in calm.good if at >= 32.0]) >= 0.99 * len(after)
    assert simulation.admission.step_for(Caller()) is Step.EVERYTHING


def test_a_slower_engine_is_noticed_before_many_are_late() -> None:
    """At half the speed half as much is let in, after a second or two."""

    class Throttled(Simulation):
        def _compute(self, until: float) -> None:
            self.rate = RATE if self.now < SECONDS / 2 else RATE / 2
            super()._compute(until)

    stream = Stream(Caller(), rate=50.0)
    Throttled(RATE, [stream]).run(SECONDS)
    late = [at for at in stream.late if at > SECONDS / 2 + 3.0]
    assert len(late) <= 1
    assert goodput(stream, since=SECONDS / 2 + 3.0) >= 4.4


def test_the_capacity_of_a_batching_engine_is_found_out() -> None:
    """Alone a request shows an eighth of what the engine can do; under load the estimate grows to all of it."""
    stream = Stream(Caller(), rate=80.0)
    simulation = Batching(slots=8, seconds=0.2, streams=[stream])
    simulation.run(SECONDS)
    assert goodput(stream, since=5.0) >= 0.9 * 40.0
    assert len(stream.late) <= 0.02 * len(stream.good)


def test_under_brown_out_more_callers_get_the_first_items() -> None:
    """Where the operator allows it, half of the items for nearly twice the callers; and all of them again later."""
    settings = AdmissionSettings(brown_out="items", items_share=0.5)
    stream = Stream(Caller(), rate=50.0)
    simulation = Simulation(RATE, [stream], settings=settings)
    simulation.run(SECONDS)
    assert goodput(stream) >= 16.0
    assert simulation.admission.counts.shortened >= 0.9 * simulation.admission.counts.admitted
