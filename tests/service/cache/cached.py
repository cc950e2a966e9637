"""A pipeline around fakes with a cache, and what to compare of its answers."""

from __future__ import annotations

import string
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from models.deadline import Deadline
from models.prompt import Item
from service.cache.cache import ResultCache
from service.cache.settings import CacheSettings
from service.fetch import Fetcher
from service.pipeline import Pipeline
from service.request import Call, Caller, Candidate, ScoreRequest
from tests.service.cache.conftest import connect, eventually, settings_for
from tests.service.conftest import FakeKnowledge, OverlapEngine, judge_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.reply import ScoreReply

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
