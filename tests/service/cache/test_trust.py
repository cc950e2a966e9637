"""What an engine scored before it was found to answer wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from service.selftest import SelfTest
from service.settings import HealthSettings
from tests.service.cache.cached import cached_on, in_redis, written
from tests.service.cache.conftest import eventually
from tests.service.conftest import OverlapEngine

if TYPE_CHECKING:
    from pathlib import Path

    from models.engines.port import EngineHealth
    from tests.redis_server import RedisServer


async def test_scores_since_the_last_good_probe_are_forgotten_after_a_wrong_one(checkpoint: Path) -> None:
    """Older ones stay, nothing new is kept until a probe is right again."""
    cached = cached_on(checkpoint)
    await cached.score("before")
    cached.cache.trust(True)
    await cached.score("doubtful")
    cached.cache.trust(False)
    assert (await cached.score("before")).usage.cached_items == 1
    for _ in range(2):
        assert (await cached.score("doubtful")).usage.cached_items == 0
    cached.cache.trust(True)
    assert (await cached.score("doubtful")).usage.cached_items == 0
    assert (await cached.score("doubtful")).usage.cached_items == 1


class SelfAware(OverlapEngine):
    """Looks at itself too, as a pool of servers does."""

    wrong: int = 0

    def health(self) -> EngineHealth:
        """With what it found."""
        return replace(super().health(), wrong=self.wrong)


async def test_an_engine_that_finds_itself_wrong_is_in_doubt_though_it_is_right_again(checkpoint: Path) -> None:
    """One server of several may have lied and be gone before the next probe, which then must not prove its scores."""
    engine = SelfAware()
    cached = cached_on(checkpoint, engine)
    test = SelfTest(cached.pipeline.judge, HealthSettings(), cached.cache.trust)
    await test.probe()
    await cached.score("doubtful")
    engine.wrong = 1
    await test.probe()
    assert test.tested.is_set()
    assert not test.untrusted
    assert (await cached.score("doubtful")).usage.cached_items == 0
    assert (await cached.score("doubtful")).usage.cached_items == 1
    await test.probe()
    assert (await cached.score("doubtful")).usage.cached_items == 1


async def test_they_are_forgotten_in_redis_too(checkpoint: Path, server: RedisServer) -> None:
    """No other process finds them."""
    async with in_redis(checkpoint, server.port) as one, in_redis(checkpoint, server.port) as other:
        await one.score("doubtful")
        await written(one, 1)
        assert (await other.score("doubtful")).usage.cached_items == 1
        with server.client() as client:
            kept = len(client.keys("*"))
            one.cache.trust(False)
            await eventually(lambda: len(client.keys("*")) == kept - 1)
        assert (await other.score("doubtful")).usage.cached_items == 0


async def test_health_tells_the_cache_what_probes_find(checkpoint: Path) -> None:
    """A wrong canary empties it of what is in doubt before anybody asks."""
    cached = cached_on(checkpoint)
    heard: list[bool] = []
    test = SelfTest(cached.pipeline.judge, HealthSettings(), heard.append)
    await test.probe()
    cached.engine.hang = True
    test._settings = HealthSettings(probe_timeout_seconds=0.01)
    await test.probe()  # no answer says nothing about scores
    cached.engine.hang = False
    object.__setattr__(cached.pipeline.judge.manifest.canaries[0], "tier", "2-Mismatch")
    test._settings = HealthSettings()
    await test.probe()
    assert heard == [True, False]
