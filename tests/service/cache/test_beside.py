"""Caches of several judges in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cache.cache import ResultCache
from service.cache.settings import CacheSettings
from service.fetch import Fetcher
from service.pipeline import Pipeline
from tests.service.cache.cached import Cached, cached_on, in_redis, written
from tests.service.conftest import OverlapEngine, judge_on

if TYPE_CHECKING:
    from pathlib import Path

    from tests.redis_server import RedisServer


def beside(first: Cached, checkpoint: Path, name: str = "other") -> Cached:
    """A judge of another name beside one, all else the same."""
    judge = judge_on(checkpoint, OverlapEngine())
    manifest = judge.manifest.model_copy(update={"name": name})
    cache = ResultCache(CacheSettings(), manifest, judge.engine.name, beside=first.cache)
    pipeline = Pipeline(
        type(judge)(manifest, judge.tokenizer, judge.writer, judge.engine), Fetcher(None, 1), cache=cache
    )
    return Cached(pipeline, judge.engine, None, cache)  # type: ignore[arg-type] # the fake engine


async def test_they_share_memory_and_no_score(checkpoint: Path) -> None:
    """One limit of bytes and one set of counters for the process; a name alone keeps two judges apart."""
    one = cached_on(checkpoint)
    other = beside(one, checkpoint)
    for cached in (one, other):
        assert (await cached.score("abcd")).usage.cached_items == 0
        assert (await cached.score("abcd")).usage.cached_items == 1
    assert one.cache.memory is other.cache.memory
    assert (one.cache.stats.memory_hits, one.cache.stats.misses) == (2, 2)


async def test_doubt_of_one_leaves_the_other_its_scores(checkpoint: Path) -> None:
    """What is forgotten is what that judge scored."""
    one = cached_on(checkpoint)
    other = beside(one, checkpoint)
    for cached in (one, other):
        await cached.score("abcd")
    other.cache.trust(False)
    assert (await one.score("abcd")).usage.cached_items == 1
    assert (await other.score("abcd")).usage.cached_items == 0


async def test_closing_one_leaves_the_others_redis_open(checkpoint: Path, server: RedisServer) -> None:
    """The connections are the first one's."""
    async with in_redis(checkpoint, server.port) as one:
        other = beside(one, checkpoint)
        await other.score("abcd")
        await written(one, 1)
        await other.cache.close()
        await one.score("abcd")
        await written(one, 2)
        assert (await one.score("abcd")).usage.cached_items == 1
