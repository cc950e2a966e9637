import asyncio

import numpy as np
import pytest

from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.engines.vllm import VllmEngine
from models.engines.vllm.arguments import CPU_BLOCK
from models.errors import CheckpointError, EngineError, PromptTooLongError
from models.manifest import Manifest
from models.prompt import Prompt

from .conftest import Reference

pytestmark = pytest.mark.asyncio(loop_scope="session")  # where the engine lives

TOLERANCE = 1e-4  # log-probabilities, float32 against float32, other order of additions


def parts(prompt: Prompt, start: int = 0, stop: int = 12) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Prefix and some suffixes of a request."""
    return prompt.prefix.ids, [s.ids for s in prompt.suffixes[start:stop]]


async def idle(engine: VllmEngine) -> None:
    """Return when vLLM has nothing to do; a hang fails by the test's timeout."""
    while engine.meter.running + engine.meter.waiting:  # noqa: ASYNC110 - another process, it sets no event
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("scope", ["", "cold"])
async def test_label_logits_agree_with_transformers(
    engine: VllmEngine, reference: Reference, requests: list[Prompt], scope: str
) -> None:
    """The gate: same numbers as the plain path, with the prefix cache cold and warm, with and without chunk."""
    for request in requests[:2]:
        prefix, suffixes = parts(request)
        expected = np.stack([reference.label_logprobs([*prefix, *s]) for s in suffixes])
        mass = [reference.label_mass([*prefix, *s]) for s in suffixes]
        for _ in range(2):
            scores = await engine.score(prefix, suffixes, Deadline.never(), scope=scope)
            assert set(scores.status) == {ItemStatus.OK}
            np.testing.assert_allclose(scores.logprobs, expected, atol=TOLERANCE)
            assert scores.label_mass is not None
            np.testing.assert_allclose(scores.label_mass, mass, atol=TOLERANCE)


async def test_items_neither_know_their_neighbours_nor_their_order(engine: VllmEngine, requests: list[Prompt]) -> None:
    """An item's answer is the same alone, in company, and in any place."""
    prefix, suffixes = parts(requests[3])
    together = await engine.score(prefix, suffixes, Deadline.never())
    backwards = await engine.score(prefix, suffixes[::-1], Deadline.never())
    alone = [await engine.score(prefix, [s], Deadline.never()) for s in suffixes[:4]]
    np.testing.assert_allclose(together.logprobs, backwards.logprobs[::-1], atol=TOLERANCE)
    np.testing.assert_allclose(together.logprobs[:4], [a.logprobs[0] for a in alone], atol=TOLERANCE)


async def test_the_prefix_is_computed_once(engine: VllmEngine, requests: list[Prompt]) -> None:
    """By vLLM's own counters: a cold prefix costs its full blocks once, a warm one nothing but its partial block."""
    prefix, suffixes = parts(max(requests, key=lambda r: len(r.prefix.ids)), 20, 30)
    assert len(prefix) > 2 * CPU_BLOCK
    partial = len(prefix) % CPU_BLOCK
    own = sum(map(len, suffixes))
    for scope, cold in (("first", True), ("first", False), ("second", True)):
        await idle(engine)
        before = engine.meter.computed_tokens
        scores = await engine.score(prefix, suffixes, Deadline.never(), scope=scope)
        computed = engine.meter.computed_tokens - before
        shared = len(prefix) - partial if cold else 0
        assert computed <= shared + len(suffixes) * partial + own + 2  # 2: a probe may fall between
        assert scores.cached_tokens == (0 if cold else len(prefix)) or scores.cached_tokens == len(prefix) - partial
        assert (scores.cached_tokens == 0) is cold  # the second scope finds nothing of the first one's


async def test_no_items_cost_nothing(engine: VllmEngine) -> None:
    """An empty request must be answered without the engine."""
    assert (await engine.score([1, 2], [], Deadline.never())).logprobs.shape == (0, 4)


async def test_expired_items_are_dropped_and_the_scheduler_is_empty_within_a_step(
    engine: VllmEngine, requests: list[Prompt]
) -> None:
    """When the deadline passes, finished items keep their scores, the rest are EXPIRED, and vLLM forgets them."""
    prefix, suffixes = parts(requests[0], 0, 100)
    for milliseconds in (250 * 2**n for n in range(10)):  # until vLLM has begun by then, however busy the machine
        deadline = Deadline.after(milliseconds)
        call = asyncio.create_task(engine.score(prefix, suffixes * 5, deadline, scope=f"late {milliseconds}"))
        while not (begun := engine.meter.running > 0) and not call.done():  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.001)
        scores = await call
        if begun:
            break
    assert ItemStatus.EXPIRED in scores.status
    late = [s is ItemStatus.EXPIRED for s in scores.status]
    assert np.isnan(scores.logprobs[late]).all()
    assert np.isfinite(scores.logprobs[~np.array(late)]).all()
    steps = engine.meter.steps
    await idle(engine)
    assert engine.meter.steps - steps <= 3  # the one that was running, the one that reports the end, a probe
    assert engine.health().queued_tokens == 0


async def test_a_passed_deadline_costs_nothing(engine: VllmEngine, requests: list[Prompt]) -> None:
    """Work whose time is over must not be begun."""
    prefix, suffixes = parts(requests[0])
    before = engine.meter.prompt_tokens
    scores = await engine.score(prefix, suffixes, Deadline.after(0))
    assert set(scores.status) == {ItemStatus.EXPIRED}
    assert engine.meter.prompt_tokens - before <= 1  # a probe


async def test_a_leaving_caller_empties_the_scheduler(engine: VllmEngine, requests: list[Prompt]) -> None:
    """Cancelling the call aborts its prompts; a later request is answered as ever."""
    prefix, suffixes = parts(requests[4], 0, 100)
    call = asyncio.create_task(engine.score(prefix, suffixes * 3, Deadline.never(), scope="leaver"))
    while not engine.meter.running:  # noqa: ASYNC110 - another process, it sets no event
        await asyncio.sleep(0.001)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    steps = engine.meter.steps
    await idle(engine)
    assert engine.meter.steps - steps <= 3
    assert set((await engine.score(prefix, suffixes[:4], Deadline.never())).status) == {ItemStatus.OK}


async def test_sooner_deadlines_go_first(engine: VllmEngine, requests: list[Prompt]) -> None:
    """A request that is due soon overtakes a backlog that is not."""
    prefix, suffixes = parts(requests[6], 0, 100)
    backlog = asyncio.create_task(engine.score(prefix, suffixes * 3, Deadline.after(600_000), scope="backlog"))
    while not engine.meter.waiting:  # noqa: ASYNC110 - another process, it sets no event
        await asyncio.sleep(0.001)
    urgent = await engine.score(prefix, suffixes[:4], Deadline.after(300_000))
    assert set(urgent.status) == {ItemStatus.OK}
    assert not backlog.done()
    assert set((await backlog).status) == {ItemStatus.OK}


async def test_more_than_the_cache_holds_is_answered_right(
    engine: VllmEngine, reference: Reference, requests: list[Prompt]
) -> None:
    """Out of memory for keys and values, items wait or are computed again; none is lost, none is wrong."""
    whole = [parts(request, 0, 100) for request in requests[7:10]]
    answers = await asyncio.gather(*(engine.score(p, s, Deadline.never(), scope="flood") for p, s in whole))
    for (prefix, suffixes), scores in zip(whole, answers, strict=True):
        assert set(scores.status) == {ItemStatus.OK}
        for n in (0, 50, 99):
            expected = reference.label_logprobs([*prefix, *suffixes[n]])
            np.testing.assert_allclose(scores.logprobs[n], expected, atol=TOLERANCE)


async def test_ids_that_are_no_tokens_are_refused(engine: VllmEngine, requests: list[Prompt]) -> None:
    """An id outside the vocabulary fails its own request with a typed error and harms neither engine nor neighbours."""
    prefix, suffixes = parts(requests[5], 0, 4)
    good = asyncio.create_task(engine.score(prefix, suffixes, Deadline.never()))
    for wrong in (10**6, -1):
        with pytest.raises(EngineError, match="vocabulary"):
            await engine.score(prefix, [*suffixes, [wrong]], Deadline.never())
    assert set((await good).status) == {ItemStatus.OK}
    assert engine.health().alive
    assert engine.health().queued_tokens == 0


async def test_too_long_a_prompt_is_refused(engine: VllmEngine, manifest: Manifest) -> None:
    """A prompt without room for the answer must be refused by its length, before it reaches vLLM."""
    fits, too_long = [5] * manifest.max_tokens, [5] * 600
    assert (await engine.score(fits[:9], [fits[9:]], Deadline.never())).status == (ItemStatus.OK,)
    with pytest.raises(PromptTooLongError, match="600"):
        await engine.score([], [too_long], Deadline.never())
    with pytest.raises(PromptTooLongError):
        _ = [t async for t in engine.explain(fits, [5], Deadline.never(), label=4, max_tokens=9)]
    near = [t async for t in engine.explain(fits[5:], [5], Deadline.never(), label=4, max_tokens=64)]
    assert len(near) <= 512 - len(fits) + 3


async def test_explain_decodes_what_transformers_decodes(
    engine: VllmEngine, reference: Reference, requests: list[Prompt], manifest: Manifest
) -> None:
    """The rationale is the plain greedy decode after the label, streamed a step at a time, up to the end token."""
    prefix, (suffix, *_) = parts(requests[1])
    label, end = manifest.label_token_ids[0], manifest.rationale.end_token_id
    most = manifest.rationale.max_tokens
    found, steps = [], []
    async for token in engine.explain(prefix, suffix, Deadline.never(), label=label, max_tokens=most):
        found.append(token)
        steps.append(engine.meter.steps)
    plain = reference.greedy([*prefix, *suffix, label], end=end, most=most)
    assert found == [token for token in plain if token != end]
    assert len(set(steps)) > 1 or len(found) < 3


async def test_leaving_an_explanation_aborts_it(engine: VllmEngine, requests: list[Prompt]) -> None:
    """A reader who stops reading, or a deadline that passes, must end the decoding."""
    prefix, (suffix, *_) = parts(requests[1])
    stream = engine.explain(prefix, suffix, Deadline.never(), label=9, max_tokens=64)
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined] # the port promises an iterator, this one is a generator
    await idle(engine)
    late = [t async for t in engine.explain(prefix, suffix, Deadline.after(1), label=9, max_tokens=64)]
    assert len(late) < 64
    await idle(engine)


async def test_an_adapter_is_a_judge_of_its_own(
    engine: VllmEngine, reference: Reference, adapted: Reference, requests: list[Prompt]
) -> None:
    """Adapter and base answer side by side as their merged and plain weights do, and share nothing cached."""
    toys = engine.adapter("toys")
    prefix, suffixes = parts(requests[1], 0, 6)
    own, base = await asyncio.gather(
        toys.score(prefix, suffixes, Deadline.never()), engine.score(prefix, suffixes, Deadline.never())
    )
    for n, suffix in enumerate(suffixes):
        np.testing.assert_allclose(own.logprobs[n], adapted.label_logprobs([*prefix, *suffix]), atol=10 * TOLERANCE)
        np.testing.assert_allclose(base.logprobs[n], reference.label_logprobs([*prefix, *suffix]), atol=TOLERANCE)
    assert np.abs(own.logprobs - base.logprobs).max() > 0.01
    assert toys.name == "vllm-float32+toys"
    await toys.close()
    assert engine.health().alive
    with pytest.raises(CheckpointError, match="toys"):
        engine.adapter("garden")
