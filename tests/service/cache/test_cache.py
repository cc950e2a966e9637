"""The pipeline with a cache: the same answers, and the engine asked only for what is new."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import EngineBusyError, EngineUnavailableError
from service.cache.settings import CacheSettings
from service.errors import DeadlineError, NotReadyError
from service.fetch import Fetcher
from service.pipeline import Pipeline
from service.request import OwnContext, ScoreRequest
from tests.service.cache.cached import MANY, answer, cached_on, call, in_redis, request, written
from tests.service.cache.conftest import eventually
from tests.service.conftest import FakeHit, FakeKnowledge, OverlapEngine, judge_on

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from models.deadline import Deadline
    from models.engines.port import Scores
    from tests.redis_server import RedisServer


async def test_a_full_hit_needs_neither_engine_nor_retrieval(checkpoint: Path) -> None:
    """The same answer with the chunk's reference, and it says that it was not computed."""
    cached = cached_on(checkpoint, knowledge=FakeKnowledge())
    first = await cached.score("abcd", "wxyz")
    assert cached.knowledge is not None
    cached.knowledge.raises = AssertionError("searched")
    second = await cached.score("abcd", "wxyz")
    assert answer(second) == answer(first)
    assert second.context is not None
    assert (second.context.chunk_id, second.versions.index) == ("card-1", "index-1")
    assert cached.computed == 2
    assert (first.usage.cached_items, second.usage.cached_items) == (0, 2)
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, second.usage.prompt_tokens)
    assert list(second.timings_ms) == ["recall", "judge", "total"]
    assert (cached.cache.stats.memory_hits, cached.cache.stats.misses, cached.cache.stats.stores) == (2, 2, 2)


async def test_only_misses_are_computed(checkpoint: Path) -> None:
    """Order, ids and neighbours do not matter; content does."""
    cached = cached_on(checkpoint)
    await cached.score("abcd", "wxyz")
    reply = await cached.score("ab", "wxyz", "abcd", "ab")
    assert [len(suffixes) for _, suffixes in cached.engine.calls] == [2, 1]
    assert reply.usage.cached_items == 3  # the second "ab" too
    by_index = {r.index: r for r in reply.results}
    assert by_index[0].score == by_index[3].score
    assert [by_index[n].id for n in range(4)] == ["i0", "i1", "i2", "i3"]


titles = st.lists(st.text("abcd wxyz", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=6)


@settings(max_examples=40)
@given(
    st.lists(titles, min_size=1, max_size=5),
    st.sampled_from(["auto", "none", OwnContext("abwx")]),
    st.integers(0, 3_000),
)
def test_the_cache_changes_no_answer(checkpoint: Path, asked: list[list[str]], context: Any, room: int) -> None:
    """However large it is and whatever was asked before; tokens are counted the same too."""

    async def both() -> None:
        knowledge = FakeKnowledge()
        plain = Pipeline(judge_on(checkpoint, OverlapEngine()), Fetcher(knowledge, 5_000.0))
        cached = cached_on(checkpoint, knowledge=knowledge, configured=CacheSettings(memory_bytes=room))
        same: dict[tuple[str, ...], ScoreRequest] = {}
        for names in asked:
            expected = await plain.score(request(*names, context=context), call())
            again = same.setdefault(tuple(names), request(*names, context=context))
            assert answer(await cached.pipeline.score(again, call())) == answer(expected)

    asyncio.run(both())


async def test_two_tenants_never_share(checkpoint: Path, server: RedisServer) -> None:
    """Neither in the process nor in Redis; nor can one see from the counts that another has asked."""
    async with in_redis(checkpoint, server.port) as redis:
        for cached in (redis, cached_on(checkpoint)):
            await cached.score("abcd", tenant="one")
            if cached is redis:
                await written(cached, 1)
            other = await cached.score("abcd", tenant="other")
            assert (cached.computed, other.usage.cached_items) == (2, 0)
            again = await cached.score("abcd", tenant="one")
            assert (cached.computed, again.usage.cached_items) == (2, 1)


async def test_another_beta_needs_no_rescoring(checkpoint: Path, server: RedisServer) -> None:
    """What is kept are raw log-probabilities; raising beta only demotes."""
    async with in_redis(checkpoint, server.port) as before:
        first = {r.id: r for r in (await before.score(*MANY, "ab", "a")).results}
        await written(before, 28)
    for beta, temperature in ((0.95, 1.0), (0.5, 3.0)):
        async with in_redis(checkpoint, server.port, beta=beta, temperature=temperature) as after:
            second = (await after.score(*MANY, "ab", "a")).results
            assert after.computed == 0
        uncached = cached_on(checkpoint, beta=beta, temperature=temperature)
        assert second == (await uncached.score(*MANY, "ab", "a")).results
        if temperature == 1.0:
            order = [tier.name for tier in before.pipeline.judge.manifest.tiers]
            moves = [order.index(str(r.tier)) - order.index(str(first[r.id].tier)) for r in second]
            assert min(moves) >= 0 < max(moves)


async def test_one_chunk_decision_holds_for_a_whole_request(checkpoint: Path) -> None:
    """When the chunk found for the misses is another than the hits', the hits are scored again under it."""
    cached = cached_on(checkpoint, knowledge=FakeKnowledge())
    assert cached.knowledge is not None
    await cached.score("abcd", "wxyz")
    cached.knowledge.hit = FakeHit("card-2", text="wxyz")
    reply = await cached.score("abcd", "ab")
    assert reply.context is not None
    assert reply.context.chunk_id == "card-2"
    assert [len(suffixes) for _, suffixes in cached.engine.calls] == [2, 2]
    assert (reply.usage.cached_items, cached.cache.stats.other_decision) == (0, 1)
    cached.knowledge.hit = None
    expected = cached_on(checkpoint, knowledge=FakeKnowledge(hit=None))
    assert answer(await cached.score("abcd", "a")) == answer(await expected.score("abcd", "a"))


async def test_another_snapshot_gate_or_context_is_another_answer(checkpoint: Path) -> None:
    """Nothing scored under one is served under the other."""
    cached = cached_on(checkpoint, knowledge=FakeKnowledge())
    assert cached.knowledge is not None
    await cached.score("abcd")
    cached.knowledge.tau = 0.6
    await cached.score("abcd")
    cached.knowledge.version = "index-2"
    assert (await cached.score("abcd")).versions.index == "index-2"
    await cached.score("abcd", context="none")
    await cached.score("abcd", context=OwnContext("a helpful chunk"))
    assert cached.computed == 5
    cached.knowledge.version = "index-3"
    assert (await cached.score("abcd", context="none")).versions.index == "index-3"
    assert cached.computed == 5


async def test_a_snapshot_swapped_under_a_request_is_neither_mixed_nor_kept(checkpoint: Path) -> None:
    """The keys were made for the old one."""
    knowledge = FakeKnowledge()
    cached = cached_on(checkpoint, knowledge=knowledge)
    await cached.score("abcd")

    def swap() -> None:
        knowledge.version, knowledge.hit = "index-2", FakeHit("card-1", text="other text")

    knowledge.wait = swap  # between the look into the cache and the end of the search
    reply = await cached.score("abcd", "ab")
    assert (reply.versions.index, reply.usage.cached_items) == ("index-2", 0)
    assert (cached.computed, cached.cache.stats.stores) == (3, 1)


class NotFinite(OverlapEngine):
    """Answers NaN for the first item, and calls it ok."""

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """As the fake engine, but for that."""
        scores = await super().score(prefix, suffixes, deadline, scope=scope)
        logprobs = scores.logprobs.copy()
        logprobs[0] = np.nan
        return replace(scores, logprobs=logprobs)


@pytest.mark.parametrize(
    ("engine", "knowledge", "stores"),
    [
        (OverlapEngine(expired=frozenset({0})), None, 1),
        (OverlapEngine(failed=frozenset({0})), None, 1),
        (NotFinite(), None, 1),
        (OverlapEngine(), FakeKnowledge(raises=OSError("disk")), 0),
    ],
)
async def test_what_is_less_than_a_full_answer_is_not_kept(
    checkpoint: Path, engine: OverlapEngine, knowledge: FakeKnowledge | None, stores: int
) -> None:
    """Expired, failed and not finite rows, and all that was judged without the chunk that was wanted."""
    cached = cached_on(checkpoint, engine, knowledge)
    await cached.score("abcd", "wxyz")
    assert cached.cache.stats.stores == stores
    await cached.score("abcd", "wxyz")
    assert cached.computed == 4 - stores


@pytest.mark.parametrize(
    ("raises", "status", "flag"),
    [(EngineBusyError("full"), "expired", "cache_only"), (EngineUnavailableError("dead"), "failed", "engine")],
)
async def test_hits_survive_an_engine_that_cannot_compute_the_rest(
    checkpoint: Path, raises: Exception, status: str, flag: str
) -> None:
    """A partial answer, flagged; without a single hit it is the engine's error."""
    cached = cached_on(checkpoint)
    await cached.score("abcd")
    cached.engine.raises = raises
    reply = await cached.score("wxyz", "abcd")
    assert [(r.id, r.status) for r in reply.results] == [("i1", "ok"), ("i0", status)]
    assert reply.degraded == (flag,)
    with pytest.raises(Exception, match=str(raises)):
        await cached.score("wxyz")


async def test_after_the_deadline_hits_are_still_served(checkpoint: Path) -> None:
    """A cached answer costs nothing; the rest is expired, or an error if there is nothing else."""
    cached = cached_on(checkpoint)
    await cached.score("abcd")
    reply = await cached.score("abcd", "wxyz", ms=-1.0)
    assert [(r.id, r.status) for r in reply.results] == [("i0", "ok"), ("i1", "expired")]
    with pytest.raises(DeadlineError):
        await cached.score("wxyz", ms=-1.0)


class SlowEngine(OverlapEngine):
    """Takes a while, so that requests meet."""

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """As the fake engine, later."""
        await asyncio.sleep(0.1)
        return await super().score(prefix, suffixes, deadline, scope=scope)


async def test_concurrent_equal_requests_are_computed_once(checkpoint: Path) -> None:
    """The followers' answers are the leader's, each under its own ids."""
    cached = cached_on(checkpoint, SlowEngine())
    replies = await asyncio.gather(*(cached.score("abcd", "wxyz", ms=60_000.0 + n) for n in range(20)))
    assert cached.computed == 2
    assert all(answer(reply) == answer(replies[0]) for reply in replies)
    assert sum(reply.usage.cached_items for reply in replies) == 38
    assert cached.cache.flights.joined == 38


async def test_a_leader_that_leaves_takes_nobody_along(checkpoint: Path) -> None:
    """Its disconnect stops its own computation; the followers get their answer."""
    cached = cached_on(checkpoint, SlowEngine())
    leader = asyncio.create_task(cached.score("abcd"))
    await asyncio.sleep(0.02)
    follower = asyncio.create_task(cached.score("abcd"))
    await asyncio.sleep(0.02)
    leader.cancel()
    assert (await follower).results[0].status == "ok"
    assert leader.cancelled()
    assert cached.computed == 1


async def test_entries_end_and_hot_ones_are_computed_again_before(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hit near its end comes back at once and is refreshed behind; what nobody asked for just ends."""
    now = [1_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    cached = cached_on(checkpoint, SlowEngine(), configured=CacheSettings(ttl_seconds=100.0))
    await cached.score("abcd")
    for _ in range(50):
        await cached.score("abcd")
    assert (cached.computed, cached.cache.stats.refreshes) == (1, 0)
    now[0] += 89.99  # a life of 100 seconds less a jitter of at most a tenth
    for _ in range(400):
        now[0] += 0.025
        reply = await cached.score("abcd")
        assert reply.usage.cached_items == 1
        if cached.cache.stats.refreshes:
            break
    await eventually(lambda: cached.computed == 2)
    await eventually(lambda: not cached.cache._refreshes)
    now[0] += 85.0
    assert (await cached.score("abcd")).usage.cached_items == 1
    now[0] += 20.0
    assert (await cached.score("abcd")).usage.cached_items == 0
    assert cached.computed == 3
    await cached.cache.close()


async def test_explain_does_not_read_the_cache(checkpoint: Path) -> None:
    """Its verdict and its reasons come from one computation."""
    cached = cached_on(checkpoint)
    await cached.score("abcd")
    reply = await cached.pipeline.explain(request("abcd"), call())
    assert (cached.computed, reply.usage.cached_items) == (2, 0)


async def test_nothing_is_scored_wrong_when_the_engine_is_never_ready(checkpoint: Path) -> None:
    """No hit, no engine: the error is the engine's."""
    cached = cached_on(checkpoint, OverlapEngine(failed=frozenset({0, 1})))
    with pytest.raises(NotReadyError):
        await cached.score("abcd", "wxyz")
    assert cached.cache.stats.stores == 0
