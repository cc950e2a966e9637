"""Health and the self-test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from models.errors import CheckpointError, EngineUnavailableError
from service.canary import failing_canaries
from service.health import Health
from service.pipeline import Judge
from tests.service.conftest import OverlapEngine, judge_on

if TYPE_CHECKING:
    from pathlib import Path


def health_on(checkpoint: Path, engine: OverlapEngine, *, embedded: bool = True, hang_seconds: float = 60.0) -> Health:
    """Health that retries at once."""
    return Health(judge_on(checkpoint, engine), embedded=embedded, hang_seconds=hang_seconds, retry_seconds=0.0)


class Watching:
    """Runs `watch` for the length of a block."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def __aenter__(self) -> None:
        """Start, and let the first self-test run."""
        self._task = asyncio.create_task(self._health.watch())
        await asyncio.sleep(0.01)

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_not_ready_before_the_self_test_and_ready_after(checkpoint: Path) -> None:
    """Traffic comes only once known pairs score right."""
    health = health_on(checkpoint, OverlapEngine())
    assert not health.readiness().ok
    assert "starting" in health.readiness().failing
    async with Watching(health):
        assert health.readiness().ok


async def test_a_canary_in_the_wrong_tier_keeps_readiness_off_and_is_named(checkpoint: Path) -> None:
    """The message holds the pair, the expected tier and the one that came out."""
    judge = judge_on(checkpoint, OverlapEngine())
    swapped = tuple(c.model_copy(update={"tier": "2-Mismatch"}) for c in judge.manifest.canaries[:1])
    wrong = Judge(judge.manifest.model_copy(update={"canaries": swapped}), judge.tokenizer, judge.writer, judge.engine)
    assert await failing_canaries(wrong) == ["canary 'abcd' x 'abcd': expected 2-Mismatch, scored 4-Excellent"]
    health = Health(wrong, embedded=True, hang_seconds=60, retry_seconds=60)
    async with Watching(health):
        assert "expected 2-Mismatch, scored 4-Excellent" in health.readiness().failing
        assert health.liveness().ok


@pytest.mark.parametrize("fault", [{"failed": frozenset({0})}, {"expired": frozenset({0})}])
async def test_a_canary_without_an_answer_fails_the_self_test(checkpoint: Path, fault: dict[str, Any]) -> None:
    """No answer is not the right answer."""
    problems = await failing_canaries(judge_on(checkpoint, OverlapEngine(**fault)))
    assert len(problems) == 2
    assert all("no answer" in p for p in problems)


async def test_an_engine_that_comes_up_late_makes_it_ready_late(checkpoint: Path) -> None:
    """An unavailable engine is asked again; the process need not be restarted."""
    engine = OverlapEngine(raises=EngineUnavailableError("connection refused"))
    health = health_on(checkpoint, engine)
    async with Watching(health):
        assert "connection refused" in health.readiness().failing
        engine.raises = None
        await asyncio.sleep(0.01)
        assert health.readiness().ok


async def test_a_checkpoint_that_does_not_fit_stops_the_start(checkpoint: Path) -> None:
    """Waiting would not mend it."""
    with pytest.raises(ExceptionGroup) as caught:
        await health_on(checkpoint, OverlapEngine(raises=CheckpointError("layer 3"))).watch()
    assert caught.group_contains(CheckpointError, match="layer 3")


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
    health = health_on(checkpoint, OverlapEngine(queued_tokens=queued), hang_seconds=0.0)
    async with Watching(health):
        health._advanced = health._advanced if queued else float("inf")
        assert health.readiness().ok is ready
        assert ("7 tokens queued" in health.readiness().failing) is not ready
