"""Health and its probes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.deadline import Deadline
from models.engines.port import Scores
from models.errors import CheckpointError, EngineUnavailableError
from service.canary import failing_canaries, probe
from service.errors import NotReadyError
from service.health import Health
from service.pipeline import Judge
from service.settings import HealthSettings
from tests.service.conftest import OverlapEngine, judge_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

QUICK: dict[str, Any] = {"probe_seconds": 0.02, "retry_seconds": 0.02, "probe_timeout_seconds": 0.3}


class MoodyEngine(OverlapEngine):
    """Answers the opposite tier while `lies`."""

    lies: bool = False

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """As the fake engine, turned round."""
        scores = await super().score(prefix, suffixes, deadline, scope=scope)
        return Scores(np.ascontiguousarray(scores.logprobs[:, ::-1]), scores.status) if self.lies else scores


def health_on(checkpoint: Path, engine: OverlapEngine, *, embedded: bool = True, **settings: Any) -> Health:
    """Health that probes in quick succession."""
    return Health(judge_on(checkpoint, engine), HealthSettings(**(QUICK | settings)), embedded=embedded)


class Watching:
    """Runs `watch` for the length of a block."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def __aenter__(self) -> None:
        """Start, and let the first probe end."""
        self._task = asyncio.create_task(self._health.watch())
        async with asyncio.timeout(20):
            while "starting" in self._health.readiness().failing:  # noqa: ASYNC110 # nothing announces it
                await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until(health: Health, *, ready: bool) -> None:
    """Wait for readiness to be that."""
    async with asyncio.timeout(20):
        async for turn in health.changes():
            if turn is ready:
                return


async def test_not_ready_before_the_self_test_and_ready_after(checkpoint: Path) -> None:
    """Traffic comes only once known pairs score right."""
    health = health_on(checkpoint, OverlapEngine())
    assert not health.readiness().ok
    assert "starting" in health.readiness().failing
    with pytest.raises(NotReadyError, match="starting"):
        health.check_tested()
    async with Watching(health):
        await until(health, ready=True)
        health.check_tested()


async def test_a_canary_in_the_wrong_tier_keeps_readiness_off_and_is_named(checkpoint: Path) -> None:
    """The message holds the pair, the expected tier and the one that came out."""
    judge = judge_on(checkpoint, OverlapEngine())
    swapped = tuple(c.model_copy(update={"tier": "2-Mismatch"}) for c in judge.manifest.canaries[:1])
    wrong = Judge(judge.manifest.model_copy(update={"canaries": swapped}), judge.tokenizer, judge.writer, judge.engine)
    assert await failing_canaries(wrong) == ["canary 'abcd' x 'abcd': expected 2-Mismatch, scored 4-Excellent"]
    health = Health(wrong, HealthSettings(), embedded=True)
    async with Watching(health):
        assert "expected 2-Mismatch, scored 4-Excellent" in health.readiness().failing
        assert health.liveness().ok
        assert health.wrong


async def test_an_engine_that_begins_to_answer_wrongly_is_refused_at_once_and_comes_back_damped(
    checkpoint: Path,
) -> None:
    """One wrong canary ends readiness and scoring; as many right ones in a row as configured bring both back."""
    engine = MoodyEngine()
    health = health_on(checkpoint, engine, recoveries=3)
    await health.probe()
    assert health.readiness().ok
    engine.lies = True
    await health.probe()
    assert "expected 4-Excellent, scored 1-Irrelevant" in health.readiness().failing
    assert health.liveness().ok
    with pytest.raises(NotReadyError, match="expected 4-Excellent"):
        health.check_tested()
    engine.lies = False
    for _ in range(2):
        await health.probe()
        assert not health.readiness().ok
    await health.probe()
    assert health.readiness().ok
    health.check_tested()


@pytest.mark.parametrize("fault", [{"failed": frozenset({0})}, {"expired": frozenset({0})}])
async def test_a_canary_without_an_answer_fails_the_self_test(checkpoint: Path, fault: dict[str, Any]) -> None:
    """No answer is not the right answer, and not a wrong one either."""
    judge = judge_on(checkpoint, OverlapEngine(**fault))
    found = await probe(judge, Deadline.never())
    assert not found.wrong
    assert found.silent
    assert await failing_canaries(judge) == [found.silent]
    health = health_on(checkpoint, OverlapEngine(**fault))
    await health.probe()
    assert not health.readiness().ok


async def test_probes_without_an_answer_count_only_in_a_row(checkpoint: Path) -> None:
    """An engine that hangs while idle is found by probes, named, still trusted, and gets readiness back damped."""
    engine = OverlapEngine()
    health = health_on(checkpoint, engine, failures=3, recoveries=2)
    await health.probe()
    for hangs, ready in ((True, True), (True, True), (False, True), (True, True), (True, True), (True, False)):
        engine.hang = hangs
        await health.probe()
        assert health.readiness().ok is ready
    assert "3 probes in a row without an answer" in health.readiness().failing
    health.check_tested()  # late is not wrong
    engine.hang = False
    await health.probe()
    assert not health.readiness().ok
    await health.probe()
    assert health.readiness().ok


async def test_a_busy_engine_stays_ready(checkpoint: Path) -> None:
    """A probe that comes late while steps advance says that there is much work, not that the engine hangs."""
    engine = OverlapEngine()
    health = health_on(checkpoint, engine, failures=1)
    await health.probe()
    engine.hang = True

    async def work() -> None:
        while True:
            engine.steps += 1
            await asyncio.sleep(0.001)

    working = asyncio.create_task(work())
    for _ in range(3):
        await health.probe()
        assert health.readiness().ok
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await health.probe()
    assert not health.readiness().ok


async def test_an_engine_that_comes_up_late_makes_it_ready_late(checkpoint: Path) -> None:
    """An unavailable engine is asked again; the process need not be restarted."""
    engine = OverlapEngine(raises=EngineUnavailableError("connection refused"))
    health = health_on(checkpoint, engine)
    async with Watching(health):
        assert "connection refused" in health.readiness().failing
        assert not health.wrong
        engine.raises = None
        await until(health, ready=True)


async def test_a_checkpoint_that_does_not_fit_stops_the_start(checkpoint: Path) -> None:
    """Waiting would not mend it."""
    with pytest.raises(ExceptionGroup) as caught:
        await health_on(checkpoint, OverlapEngine(raises=CheckpointError("layer 3"))).watch()
    assert caught.group_contains(CheckpointError, match="layer 3")


async def test_a_checkpoint_without_canaries_is_probed_too(checkpoint: Path) -> None:
    """There is nothing to compare, but an engine that hangs is still found."""
    judge = judge_on(checkpoint, OverlapEngine(hang=True))
    bare = Judge(judge.manifest.model_copy(update={"canaries": ()}), judge.tokenizer, judge.writer, judge.engine)
    assert (await probe(bare, Deadline.after(10))).silent
    bare.engine.hang = False  # type: ignore[attr-defined] # the fake engine
    assert (await probe(bare, Deadline.after(10_000))).right


async def test_draining_is_not_ready_and_alive(checkpoint: Path) -> None:
    """No new traffic, and no restart either."""
    health = health_on(checkpoint, OverlapEngine())
    async with Watching(health):
        health.drain()
        assert "shutting down" in health.readiness().failing
        assert health.liveness().ok


@pytest.mark.parametrize("embedded", [True, False])
async def test_a_dead_engine_is_named_and_only_an_embedded_one_asks_for_a_restart(
    checkpoint: Path, *, embedded: bool
) -> None:
    """Restarting this process cannot mend an engine elsewhere."""
    health = health_on(checkpoint, OverlapEngine(alive=False), embedded=embedded)
    async with Watching(health):
        assert "compute thread died" in health.readiness().failing
        assert health.liveness().ok is not embedded


@pytest.mark.parametrize(("queued", "ready"), [(7, False), (0, True)])
async def test_work_without_a_step_is_hung_and_no_work_is_idle(checkpoint: Path, queued: int, *, ready: bool) -> None:
    """The step counter tells a hung engine from one that has nothing to do."""
    engine = OverlapEngine()
    health = health_on(checkpoint, engine, hang_seconds=1e-9)
    await health.probe()
    engine.queued_tokens = queued
    health._advanced = health._advanced if queued else float("inf")
    assert health.readiness().ok is ready
    assert ("7 tokens queued" in health.readiness().failing) is not ready


async def test_an_engine_that_hung_and_goes_on_gets_readiness_back(checkpoint: Path) -> None:
    """What waited is computed, steps advance again, probes are right: ready."""
    engine = OverlapEngine()
    health = health_on(checkpoint, engine, hang_seconds=0.6)
    async with Watching(health):
        await until(health, ready=True)
        engine.hang, engine.queued_tokens = True, 7
        await until(health, ready=False)
        assert "7 tokens queued" in health.readiness().failing
        engine.hang, engine.queued_tokens = False, 0
        await until(health, ready=True)


async def test_changes_tell_every_turn_of_readiness_once(checkpoint: Path) -> None:
    """What a gRPC health watch is fed with."""
    engine = OverlapEngine()
    health = health_on(checkpoint, engine)
    turns: AsyncIterator[bool] = health.changes()
    assert await anext(turns) is False
    await health.probe()
    assert await anext(turns) is True
    health.drain()
    assert await anext(turns) is False
