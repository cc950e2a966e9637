"""The engine behind its port: real graphs, real threads, and a runner that can be held or broken."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.deadline import Deadline
from models.engines.onnx import OnnxEngine
from models.engines.onnx.architecture import read_architecture
from models.engines.onnx.workers import Limits
from models.engines.port import ItemStatus
from models.errors import EngineBusyError, EngineUnavailableError, PromptTooLongError
from models.tiers import softmax
from tests.models.engines.onnx import checkpoints, reference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from numpy.typing import NDArray

    from models.engines.onnx.batch import KeysValues, Row
    from models.engines.onnx.runner import Runner
    from tests.models.engines.onnx.conftest import Tiny

NEVER = Deadline.never()
PREFIX = [5, 6, 7]
SUFFIXES = [[8, 9], [10], [11, 12, 13, 14], [8, 9]]


class Troubled:
    """A real runner whose scoring can be held at a gate, or fails while `broken`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.empty = runner.empty
        self.gate = threading.Event()
        self.reached = threading.Event()
        self.broken = False
        self.poisoned: list[int] = []

    def prefixes(self, prefixes: Sequence[Sequence[int]]) -> list[KeysValues]:
        """As the real one."""
        return self._runner.prefixes(prefixes)

    def score(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Waits at the gate first."""
        self.reached.set()
        self.gate.wait()
        if self.broken:
            raise RuntimeError("out of memory")
        logits = self._runner.score(rows)
        logits[[i for i, row in enumerate(rows) if row.suffix == self.poisoned]] = np.nan
        return logits


class FirstOnly(Troubled):
    """The first pass over items comes back; the others wait at the gate."""

    def score(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Waits at the gate from the second time on."""
        if not self.reached.is_set():
            self.reached.set()
            return self._runner.score(rows)
        return super().score(rows)


@asynccontextmanager
async def opened(tiny: Tiny, runner: Runner, limits: Limits = Limits(), threads: int = 2) -> AsyncIterator[OnnxEngine]:  # noqa: B008 - frozen
    """An engine on this runner, closed at the end."""
    engine = OnnxEngine(
        runner, read_architecture(tiny.folder), tiny.manifest, name="onnx-int8", limits=limits, threads=threads
    )
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def held(tiny: Tiny, limits: Limits = Limits()) -> AsyncIterator[tuple[OnnxEngine, Troubled]]:  # noqa: B008 - frozen
    """An engine with one thread, stuck in a request of nobody's interest until the gate opens."""
    troubled = Troubled(tiny.runner("int8"))
    async with opened(tiny, troubled, limits, threads=1) as engine:  # type: ignore[arg-type] # stands in for a Runner
        first = asyncio.create_task(engine.score([1], [[2]], NEVER))
        await asyncio.to_thread(troubled.reached.wait)
        try:
            yield engine, troubled
        finally:
            troubled.gate.set()
            await asyncio.gather(first, return_exceptions=True)


async def test_scores_are_log_probabilities_of_the_labels(mini: Tiny) -> None:
    """Rows come back in order, each a log-softmax over the labels of what the reference computes."""
    async with opened(mini, mini.runner("float32")) as engine:
        scores = await engine.score(PREFIX, SUFFIXES, NEVER)
    plain = np.array([reference.logits(mini.made, PREFIX + s)[list(checkpoints.LABELS)] for s in SUFFIXES])
    np.testing.assert_allclose(np.exp(scores.logprobs), softmax(plain.astype(np.float32)), atol=1e-5)
    assert scores.status == (ItemStatus.OK,) * 4
    assert scores.logprobs.dtype == np.float32


async def test_load_builds_once_and_warms_up(mini: Tiny) -> None:
    """The engine opens from a folder, names its precision and reports its steps."""
    engine = await asyncio.to_thread(OnnxEngine.load, mini.folder, mini.manifest, cache_dir=mini.cache, threads=1)
    assert engine.name == "onnx-int8"
    assert engine.health().steps == 0
    await engine.warm_up()
    health = engine.health()
    assert (health.alive, health.steps, health.queued_tokens) == (True, 2, 0)
    await engine.close()


async def test_concurrent_requests_score_as_each_alone(mini: Tiny) -> None:
    """Thirty requests at once, of many lengths, merge into shared passes and give the same bits as one by one."""
    random = np.random.default_rng(5)

    def draw(longest: int) -> list[int]:
        return [int(i) for i in random.integers(0, checkpoints.VOCABULARY, int(random.integers(1, longest)))]

    cases = [(draw(40), [draw(60) for _ in range(int(random.integers(1, 12)))]) for _ in range(30)]
    async with opened(mini, mini.runner("int8"), replace(Limits(), prefix_bytes=0)) as engine:
        alone = [await engine.score(prefix, suffixes, NEVER) for prefix, suffixes in cases]
        merged = await asyncio.gather(*(engine.score(prefix, suffixes, NEVER) for prefix, suffixes in cases))
    for one, other in zip(alone, merged, strict=True):
        np.testing.assert_array_equal(one.logprobs, other.logprobs)


async def test_no_items_is_no_work(mini: Tiny) -> None:
    """An empty request has an empty answer."""
    async with opened(mini, mini.runner("int8")) as engine:
        scores = await engine.score(PREFIX, [], NEVER)
    assert scores.logprobs.shape == (0, 4)
    assert scores.status == ()


async def test_a_late_request_is_not_computed(mini: Tiny) -> None:
    """Items of a request whose deadline has passed come back expired, without numbers and without a pass."""
    async with opened(mini, mini.runner("int8")) as engine:
        scores = await engine.score(PREFIX, SUFFIXES, Deadline(0.0))
        assert engine.health().steps == 0
    assert scores.status == (ItemStatus.EXPIRED,) * 4
    assert np.isnan(scores.logprobs).all()


async def test_a_deadline_is_kept_while_every_thread_is_busy(mini: Tiny) -> None:
    """What waits behind a slow pass is answered at its deadline, not when the pass ends."""
    async with held(mini) as (engine, _):
        scores = await engine.score(PREFIX, SUFFIXES, Deadline.after(1))
    assert set(scores.status) == {ItemStatus.EXPIRED}


async def test_what_is_scored_by_the_deadline_is_answered_then(mini: Tiny) -> None:
    """Finished items come back in time beside expired ones, though a pass with the others is still running."""
    troubled = FirstOnly(mini.runner("int8"))
    async with opened(mini, troubled, Limits(pass_tokens=1), threads=1) as engine:  # type: ignore[arg-type] # as above
        scores = await asyncio.wait_for(engine.score(PREFIX, SUFFIXES, Deadline.after(2_000)), 60)
        troubled.gate.set()
        complete = await engine.score(PREFIX, SUFFIXES, NEVER)
    assert scores.status.count(ItemStatus.OK) == 1
    assert scores.status.count(ItemStatus.EXPIRED) == 3
    scored = np.array([s is ItemStatus.OK for s in scores.status])
    np.testing.assert_array_equal(scores.logprobs[scored], complete.logprobs[scored])
    assert np.isnan(scores.logprobs[~scored]).all()


async def test_cancelled_work_is_dropped(mini: Tiny) -> None:
    """A caller that goes away takes its queued tokens along."""
    async with held(mini) as (engine, troubled):
        task = asyncio.create_task(engine.score(PREFIX, SUFFIXES, NEVER))
        await asyncio.sleep(0)
        assert engine.health().queued_tokens == len(PREFIX) + sum(map(len, SUFFIXES))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.health().queued_tokens == 0
        steps = engine.health().steps
        troubled.gate.set()
        await engine.score([1], [[2]], NEVER)
        assert engine.health().steps == steps + 2  # the held pass and this one, whose prefix was kept


async def test_a_full_queue_refuses(mini: Tiny) -> None:
    """Beyond the queue's limit a request is refused before anything is computed."""
    async with held(mini, replace(Limits(), queue_tokens=20)) as (engine, _):
        waiting = asyncio.create_task(engine.score(PREFIX, SUFFIXES, NEVER))
        await asyncio.sleep(0)
        with pytest.raises(EngineBusyError, match="20"):
            await engine.score(PREFIX, SUFFIXES, NEVER)
        waiting.cancel()


async def test_a_failed_pass_fails_its_items_alone(mini: Tiny) -> None:
    """Items of a pass that raised are failed; later ones are scored; three failures in a row are not health."""
    async with held(mini) as (engine, troubled):
        troubled.broken = True
        troubled.gate.set()
        for _ in range(3):
            scores = await engine.score(PREFIX, SUFFIXES, Deadline.after(1e6))
            assert set(scores.status) == {ItemStatus.FAILED}
            assert np.isnan(scores.logprobs).all()
        health = engine.health()
        assert not health.alive
        assert "out of memory" in health.detail
        troubled.broken = False
        assert set((await engine.score(PREFIX, SUFFIXES, NEVER)).status) == {ItemStatus.OK}
        assert engine.health().alive


async def test_numbers_that_are_none_fail_their_item_alone(mini: Tiny) -> None:
    """An item whose logits overflow is failed, its neighbours in the pass are not."""
    async with held(mini) as (engine, troubled):
        troubled.poisoned = SUFFIXES[1]
        troubled.gate.set()
        scores = await engine.score(PREFIX, SUFFIXES, NEVER)
    assert scores.status == (ItemStatus.OK, ItemStatus.FAILED, ItemStatus.OK, ItemStatus.OK)
    assert np.isnan(scores.logprobs[1]).all()
    assert np.isfinite(scores.logprobs[[0, 2, 3]]).all()


async def test_a_hung_pass_is_noticed(mini: Tiny) -> None:
    """A pass that does not come back makes the engine say so, to its callers too."""
    async with held(mini, replace(Limits(), hung_seconds=0.0)) as (engine, _):
        assert not engine.health().alive
        with pytest.raises(EngineUnavailableError, match="not come back"):
            await engine.score(PREFIX, SUFFIXES, NEVER)


async def test_closing_ends_what_waits(mini: Tiny) -> None:
    """Closing lets the running pass end, refuses the rest, and may be repeated."""
    async with held(mini) as (engine, troubled):
        waiting = asyncio.create_task(engine.score(PREFIX, SUFFIXES, NEVER))
        await asyncio.sleep(0)
        closing = asyncio.create_task(engine.close())
        with pytest.raises(EngineUnavailableError):
            await waiting
        troubled.gate.set()
        await closing
        await engine.close()
        with pytest.raises(EngineUnavailableError):
            await engine.score(PREFIX, SUFFIXES, NEVER)
        assert not engine.health().alive


async def test_bad_ids_and_lengths_are_refused(mini: Tiny) -> None:
    """A prompt that is too long, an empty suffix and an unknown id are refused before they can spoil a shared pass."""
    async with opened(mini, mini.runner("int8")) as engine:
        with pytest.raises(PromptTooLongError, match="120"):
            await engine.score([1] * 100, [[1] * 21], NEVER)
        with pytest.raises(ValueError, match="empty"):
            await engine.score(PREFIX, [[1], []], NEVER)
        with pytest.raises(ValueError, match="95"):
            await engine.score(PREFIX, [[checkpoints.VOCABULARY]], NEVER)


async def test_prefixes_are_kept_within_a_scope(mini: Tiny) -> None:
    """A second request with the same prefix computes it again only for another scope; the answer is the same."""
    async with opened(mini, mini.runner("int8")) as engine:
        first = await engine.score(PREFIX, SUFFIXES, NEVER, scope="a")
        again = await engine.score(PREFIX, SUFFIXES, NEVER, scope="a")
        other = await engine.score(PREFIX, SUFFIXES, NEVER, scope="b")
    assert (first.cached_tokens, again.cached_tokens, other.cached_tokens) == (0, len(PREFIX), 0)

    np.testing.assert_array_equal(first.logprobs, again.logprobs)
    np.testing.assert_array_equal(first.logprobs, other.logprobs)


async def test_waiting_and_batches_are_told(mini: Tiny) -> None:
    """A request knows how long it waited for its first pass, and the engine how many items its passes had."""
    async with opened(mini, mini.runner("int8")) as engine:
        scores = await engine.score(PREFIX, SUFFIXES, NEVER)
        batches = engine.health().batches
    assert scores.queued_ms is not None
    assert 0 <= scores.queued_ms < 60_000
    assert sum(size * count for size, count in batches.items()) == len(SUFFIXES)


async def test_explaining_equals_the_reference(mini: Tiny) -> None:
    """The rationale is what greedy decoding after the label gives, up to the limit or the end token."""
    label = checkpoints.LABELS[0]
    expected: list[int] = []
    ids = [*PREFIX, *SUFFIXES[2], label]
    while len(expected) < 12 and (token := int(reference.logits(mini.made, ids).argmax())) != checkpoints.END:
        expected.append(token)
        ids.append(token)
    async with opened(mini, mini.runner("float32")) as engine:
        found = [i async for i in engine.explain(PREFIX, SUFFIXES[2], NEVER, label=label, max_tokens=12)]
    assert found == expected


async def test_the_longest_prompt_is_explained_to_the_limit(tiny: Tiny) -> None:
    """A prompt of the manifest's limit still gets the manifest's longest rationale, at positions that are there."""
    prompt = [1 + n % 90 for n in range(tiny.manifest.max_tokens)]
    endless = tiny.manifest.rationale.model_copy(update={"end_token_id": checkpoints.VOCABULARY})
    open_ended = replace(tiny, manifest=tiny.manifest.model_copy(update={"rationale": endless}))
    async with opened(open_ended, tiny.runner("float32")) as engine:
        found = [i async for i in engine.explain(prompt[:50], prompt[50:], NEVER, label=21, max_tokens=1000)]
    ids = [*prompt, 21, *found[:-1]]
    assert len(found) == tiny.manifest.rationale.max_tokens
    assert found[-1] == reference.logits(tiny.made, ids).argmax()


async def test_the_end_token_ends(mini: Tiny) -> None:
    """Nothing is yielded from the end token on."""
    async with opened(mini, mini.runner("float32")) as engine:
        free = [i async for i in engine.explain(PREFIX, SUFFIXES[0], NEVER, label=21, max_tokens=6)]
    ends = mini.manifest.rationale.model_copy(update={"end_token_id": free[2]})
    tiny = replace(mini, manifest=mini.manifest.model_copy(update={"rationale": ends}))
    async with opened(tiny, mini.runner("float32")) as engine:
        found = [i async for i in engine.explain(PREFIX, SUFFIXES[0], NEVER, label=21, max_tokens=6)]
    assert found == free[: free.index(free[2])]


async def test_a_late_explanation_is_empty(mini: Tiny) -> None:
    """Past its deadline an explanation yields nothing more."""
    async with opened(mini, mini.runner("int8")) as engine:
        assert [i async for i in engine.explain(PREFIX, SUFFIXES[0], Deadline(0.0), label=21, max_tokens=6)] == []
