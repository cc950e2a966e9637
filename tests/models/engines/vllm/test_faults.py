"""Processes killed and stopped in the middle of a request. Each test leaves the engine answering again."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

from models.deadline import Deadline
from models.engines.port import ItemStatus, Scores
from models.engines.vllm import VllmEngine
from models.engines.vllm.process import Watch
from models.errors import EngineUnavailableError
from models.prompt import Prompt

from .conftest import Reference, until

pytestmark = pytest.mark.asyncio(loop_scope="session")  # where the engine lives


IMPATIENT = Watch(beat=0.5, hang=5.0, replace=12.0)


@contextmanager
def impatience(engine: VllmEngine) -> Iterator[None]:
    """Watch the engine more closely than elsewhere, while it is known to hang."""
    process = engine._process
    patient, process._watch = process._watch, IMPATIENT
    yield
    process._watch = patient


def processes(engine: VllmEngine, name: str) -> list[psutil.Process]:
    """Processes of vLLM by name: EngineCore schedules, Worker computes."""
    return [p for p in engine._process._family if name in p.name()]


async def in_the_middle(engine: VllmEngine, request: Prompt, deadline: Deadline) -> asyncio.Task[Scores]:
    """A long request that vLLM has begun with."""
    steps = engine.meter.steps
    suffixes = [s.ids for s in request.suffixes] * 5
    call = asyncio.create_task(engine.score(request.prefix.ids, suffixes, deadline, scope=f"faults {steps}"))
    await until(lambda: engine.meter.running > 0)
    return call


async def check(engine: VllmEngine, reference: Reference, request: Prompt) -> None:
    """The engine answers right."""
    prefix, suffix = request.prefix.ids, request.suffixes[0].ids
    scores = await engine.score(prefix, [suffix], Deadline.never())
    np.testing.assert_allclose(scores.logprobs[0], reference.label_logprobs([*prefix, *suffix]), atol=1e-4)


@pytest.mark.parametrize("name", ["EngineCore", "Worker"])
async def test_a_killed_engine_is_replaced(
    engine: VllmEngine, reference: Reference, requests: list[Prompt], name: str
) -> None:
    """On kill -9: a typed error for who waits, not ready, then a new engine that answers right."""
    call = await in_the_middle(engine, requests[0], Deadline.never())
    (victim,) = processes(engine, name)
    victim.kill()
    with pytest.raises(EngineUnavailableError):
        await call
    await until(lambda: not engine.health().alive)
    with pytest.raises(EngineUnavailableError, match="starting again"):
        await engine.score(requests[0].prefix.ids, [requests[0].suffixes[0].ids], Deadline.after(1000))
    await until(lambda: engine.health().alive)
    assert victim not in processes(engine, name)
    await check(engine, reference, requests[0])


async def test_a_stopped_engine_is_noticed_and_comes_back(
    engine: VllmEngine, reference: Reference, requests: list[Prompt]
) -> None:
    """On kill -STOP: who has a deadline gets EXPIRED by then, who has none a typed error; -CONT brings it back."""
    patient = await in_the_middle(engine, requests[1], Deadline.never())
    hasty = await in_the_middle(engine, requests[2], Deadline.after(500))
    stopped = processes(engine, "Worker")
    with impatience(engine):
        for process in stopped:
            process.suspend()
        scores = await hasty
        assert ItemStatus.EXPIRED in scores.status
        with pytest.raises(EngineUnavailableError, match="hung"):
            await patient
        assert not engine.health().alive
        for process in stopped:
            process.resume()
    await until(lambda: engine.health().alive)
    assert processes(engine, "Worker") == stopped
    await check(engine, reference, requests[1])


async def test_an_engine_that_stays_stopped_is_replaced(
    engine: VllmEngine, reference: Reference, requests: list[Prompt]
) -> None:
    """A process that never continues ignores every signal but one: it is killed, and a new engine answers."""
    stopped = [*processes(engine, "EngineCore"), *processes(engine, "Worker")]
    with impatience(engine):
        for process in stopped:
            process.suspend()
        await until(lambda: not engine.health().alive)
        await until(lambda: engine.health().alive)
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in stopped)
    await check(engine, reference, requests[2])
