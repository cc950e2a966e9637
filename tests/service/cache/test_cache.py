"""The pipeline with a cache: the same answers, and the engine asked only for what is new."""

from __future__ import annotations

import asyncio
import random
import string
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.deadline import Deadline
from models.errors import EngineBusyError, EngineUnavailableError
from models.prompt import Item
from service.cache.cache import ResultCache
from service.cache.settings import CacheSettings
from service.errors import DeadlineError, NotReadyError
from service.fetch import Fetcher
from service.pipeline import Pipeline
from service.request import Call, Caller, Candidate, OwnContext, ScoreRequest
from tests.service.cache.conftest import connect, eventually, settings_for
from tests.service.conftest import FakeHit, FakeKnowledge, OverlapEngine, judge_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from models.engines.port import Scores
    from service.reply import ScoreReply
    from tests.proxy import TcpProxy
    from tests.redis_server import RedisServer

MANY = [f"abcd{string.ascii_lowercase[n]}{n}" for n in range(26)]


@dataclass
class Cached:
    """A pipeline around fakes, with its cache."""

    pipeline: Pipeline
    engine: OverlapEngine
    knowledge: FakeKnowledge | None
    cache: ResultCache

    async def score(self, *titles: str, tenant: str = "public", ms: float = 60_000.0, **options: Any) -> ScoreReply:
        """Score titles against one query."""
        return await self.pipeline.score(request(*titles, **options), call(tenant, ms))

    @property
    def computed(self) -> int:
        """Items that the engine has scored."""
        return sum(len(suffixes) for _, suffixes in self.engine.calls)


def call(tenant: str = "public", ms: float = 60_000.0) -> Call:
    """A call that starts now."""
    return Call("r1", Deadline.after(ms), time.monotonic(), caller=Caller(tenant))


def request(*titles: str, query: str = "abcd", **options: Any) -> ScoreRequest:
    """A request for these titles, ids by position."""
    return ScoreRequest(query, tuple(Candidate(f"i{n}", Item(t)) for n, t in enumerate(titles)), **options)


def answer(reply: ScoreReply) -> tuple[Any, ...]:
    """All of a reply that must not depend on the cache."""
    usage = (reply.usage.prompt_tokens, reply.usage.total_tokens)
    return reply.results, reply.context, reply.versions, reply.degraded, usage


def cached_on(
    checkpoint: Path,
    engine: OverlapEngine | None = None,
    knowledge: FakeKnowledge | None = None,
    configured: CacheSettings | None = None,
    **manifest: Any,
) -> Cached:
    """Make a pipeline with a cache; fields of the manifest by keyword."""
    engine = engine or OverlapEngine()
    judge = judge_on(checkpoint, engine)
    judge = replace(judge, manifest=judge.manifest.model_copy(update=manifest))
    cache = ResultCache(configured or CacheSettings(), judge.manifest, engine.name)
    return Cached(Pipeline(judge, Fetcher(knowledge, 5_000.0), cache=cache), engine, knowledge, cache)


@asynccontextmanager
async def in_redis(checkpoint: Path, port: int, **options: Any) -> AsyncIterator[Cached]:
    """A pipeline whose cache is in Redis alone, and connected."""
    cached = cached_on(checkpoint, configured=settings_for(port, memory_bytes=0), **options)
    assert cached.cache.remote is not None
    await connect(cached.cache.remote)
    try:
        yield cached
    finally:
        await cached.cache.close()


async def written(cached: Cached, entries: int) -> None:
    """Wait until so many entries were written behind."""
    remote = cached.cache.remote
    assert remote is not None
    await eventually(lambda: remote.stats.stored >= entries)


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
    [(EngineBusyError("full"), "expired", "deadline"), (EngineUnavailableError("dead"), "failed", "engine")],
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


async def test_a_process_finds_in_redis_what_another_has_computed(checkpoint: Path, server: RedisServer) -> None:
    """With the chunk's reference; and keeps it in its own memory then."""
    async with in_redis(checkpoint, server.port, knowledge=FakeKnowledge()) as one:
        first = await one.score(*MANY)
        await written(one, len(MANY) + 1)
    searching = FakeKnowledge(raises=AssertionError("searched"))
    other = cached_on(checkpoint, knowledge=searching, configured=settings_for(server.port))
    remote = other.cache.remote
    assert remote is not None
    await connect(remote)
    assert answer(await other.score(*MANY)) == answer(first)
    other.cache.remote = None
    assert answer(await other.score(*MANY)) == answer(first)
    assert other.computed == 0
    assert (other.cache.stats.remote_hits, other.cache.stats.memory_hits) == (len(MANY), len(MANY))
    await remote.close()


async def test_no_wrong_score_comes_out_of_a_corrupted_redis(checkpoint: Path, server: RedisServer) -> None:
    """Flipped bits, swapped, shortened, doubled and random values are misses; every answer stays right."""
    chance = random.Random(7)
    expected = answer(await cached_on(checkpoint, knowledge=FakeKnowledge()).score(*MANY))
    corrupted = 0
    for _ in range(30):
        async with in_redis(checkpoint, server.port, knowledge=FakeKnowledge()) as cached:
            await cached.score(*MANY)
            await written(cached, cached.cache.stats.stores)
        with server.client() as client:
            keys = sorted(client.keys("*"))
            values = [bytes(value) for value in client.mget(keys)]
            for key, value in zip(keys, _spoilt(values, chance), strict=True):
                client.set(key, value)
        async with in_redis(checkpoint, server.port, knowledge=FakeKnowledge()) as cached:
            assert answer(await cached.score(*MANY)) == expected
            corrupted += cached.cache.stats.corrupted
            await written(cached, cached.cache.stats.stores)
    assert corrupted > 100


def _spoilt(values: list[bytes], chance: random.Random) -> list[bytes]:
    spoilt = list(values)
    for at in chance.sample(range(len(values)), len(values) // 2):
        value = values[at]
        flipped = bytearray(value)
        flipped[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        spoilt[at] = chance.choice(
            [
                bytes(flipped),
                chance.choice(values),
                value[: chance.randrange(len(value))],
                value * 2,
                chance.randbytes(64),
            ]
        )
    return spoilt


async def test_no_wrong_score_comes_out_of_a_connection_that_garbles(
    checkpoint: Path, server: RedisServer, proxy: TcpProxy
) -> None:
    """Changed, moved and swapped bytes on the wire cost hits, never a right answer."""
    expected = answer(await cached_on(checkpoint).score(*MANY))
    async with in_redis(checkpoint, server.port) as cached:
        await cached.score(*MANY)
        await written(cached, len(MANY))
    chance = random.Random(3)

    def garble(data: bytes) -> bytes:
        if len(data) < 1_000:
            return data
        changed = bytearray(data)
        if chance.random() < 0.5:
            for _ in range(3):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        else:  # two values change places: the shape stays right
            one, other = (100 + 71 * chance.randrange(8) for _ in range(2))
            changed[one : one + 64], changed[other : other + 64] = changed[other : other + 64], changed[one : one + 64]
        return bytes(changed)

    spoilt = 0
    async with in_redis(checkpoint, proxy.port) as cached:
        assert cached.cache.remote is not None
        for _ in range(60):
            proxy.rewrite = garble
            assert answer(await cached.score(*MANY)) == expected
            proxy.heal()
            await connect(cached.cache.remote)
        spoilt = cached.cache.stats.corrupted + cached.cache.remote.stats.failures
    assert spoilt > 30


async def test_a_dead_redis_costs_no_answer(checkpoint: Path, proxy: TcpProxy) -> None:
    """Requests go on as if there were none."""
    async with in_redis(checkpoint, proxy.port) as cached:
        await cached.score("abcd")
        proxy.refuses = True
        proxy.reset()
        for _ in range(5):
            assert (await cached.score("abcd")).results[0].status == "ok"


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
