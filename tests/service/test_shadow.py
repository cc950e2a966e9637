"""Shadow mode: a candidate beside the live judge."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from models.engines.port import Scores
from models.errors import EngineUnavailableError
from models.manifest import SHIPPED
from service.fetch import Fetcher
from service.gateway import Gateway, assemble, open_trial
from service.http.app import create_app
from service.settings import Settings, SettingsError
from service.shadow import QUEUE, Trial
from tests.service.conftest import FakeHit, FakeKnowledge, OverlapEngine, judge_on, watched
from tests.service.processes import eventually, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from models.deadline import Deadline

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}, {"id": "b", "title": "wxyz"}]}


class DoubtfulEngine(OverlapEngine):
    """As the fake engine for the canaries' query; finds everything else irrelevant."""

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """The fake engine's answers, turned round for longer queries."""
        scores = await super().score(prefix, suffixes, deadline, scope=scope)
        longer = len(prefix) > len("abcd") + 1
        return Scores(scores.logprobs[:, ::-1].copy() if longer else scores.logprobs, scores.status)


@asynccontextmanager
async def shadowed(checkpoint: Path, trial: Trial, live: FakeKnowledge | None = None) -> AsyncIterator[Gateway]:
    """A gateway with a candidate, both running."""
    settings = Settings(checkpoint=checkpoint, deadline_ms=60_000)
    gateway = assemble(settings, judge_on(checkpoint, OverlapEngine()), Fetcher(live, 1000), embedded=True, trial=trial)
    assert gateway.shadow is not None
    async with watched(gateway):
        await gateway.health.tested.wait()
        await asyncio.sleep(0.05)  # the candidate's canaries
        yield gateway


async def ask(gateway: Gateway, *bodies: dict[str, Any]) -> list[int]:
    """Statuses of some requests, one after the other."""
    transport = httpx.ASGITransport(create_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://tierwise") as client:
        return [(await client.post("/v1/score", json=body)).status_code for body in bodies]


def value(gateway: Gateway, name: str, **labels: str) -> float:
    """A metric's value, summed over the labels that are not named."""
    found = [s for f in gateway.metrics.registry.collect() for s in f.samples if s.name == name]
    return sum(s.value for s in found if all(s.labels[key] == wanted for key, wanted in labels.items()))


async def counted(gateway: Gateway, requests: int, outcome: str) -> None:
    """Wait until so many requests have this outcome."""
    async with asyncio.timeout(30):
        while value(gateway, "tierwise_shadow_requests_total", outcome=outcome) < requests:  # noqa: ASYNC110 # a counter
            await asyncio.sleep(0.01)


async def test_agreement_and_flips_are_counted(checkpoint: Path) -> None:
    """Item by item: the same tier, or which one became which; with the candidate's own times."""
    async with shadowed(checkpoint, Trial(judge_on(checkpoint, DoubtfulEngine()), None, 1.0)) as gateway:
        await ask(gateway, BODY, {**BODY, "query": "abcde", "top_n": 1})
        await counted(gateway, 2, "compared")
        assert value(gateway, "tierwise_shadow_items_total", outcome="same") == 2
        assert value(gateway, "tierwise_shadow_items_total", outcome="band") == 2
        assert value(gateway, "tierwise_shadow_flips_total", live="1-Irrelevant", found="4-Excellent") == 1
        assert value(gateway, "tierwise_shadow_stage_seconds_count", stage="score") == 2
        assert value(gateway, "tierwise_shadow_score_distance_count") == 4
        assert value(gateway, "tierwise_items_total") == 4  # of the live judge alone


async def test_an_index_is_tried_with_the_live_judge(checkpoint: Path) -> None:
    """Another chunk can make another verdict; the index is named."""
    other = Fetcher(FakeKnowledge(FakeHit(text="wxyz"), version="index-2"), 1000)
    async with shadowed(checkpoint, Trial(None, other, 1.0), FakeKnowledge(None)) as gateway:
        await ask(gateway, BODY)
        await counted(gateway, 1, "compared")
        assert value(gateway, "tierwise_shadow_items_total", index="index-2") == 2
        assert value(gateway, "tierwise_shadow_items_total", index="index-2", outcome="same") < 2


async def test_a_candidate_in_trouble_costs_nothing(checkpoint: Path) -> None:
    """One that hangs has its samples dropped, one that dies has them failed; every caller is answered."""
    hanging = OverlapEngine(hang=True, armed=False)
    async with shadowed(checkpoint, Trial(judge_on(checkpoint, hanging), None, 1.0)) as gateway:
        hanging.armed = True
        assert await ask(gateway, *[BODY] * (QUEUE + 5)) == [200] * (QUEUE + 5)
        assert value(gateway, "tierwise_shadow_requests_total", outcome="dropped") >= 4
    dying = OverlapEngine(raises=EngineUnavailableError("died"), armed=False)
    async with shadowed(checkpoint, Trial(judge_on(checkpoint, dying), None, 1.0)) as gateway:
        dying.armed = True
        assert await ask(gateway, BODY) == [200]
        await counted(gateway, 1, "failed")


async def test_a_candidate_that_fails_its_canaries_is_left_alone(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its agreement would be a number without a meaning."""
    dead = OverlapEngine(raises=EngineUnavailableError("died"))
    async with shadowed(checkpoint, Trial(judge_on(checkpoint, dead), None, 1.0)) as gateway:
        assert await ask(gateway, BODY) == [200]
        assert value(gateway, "tierwise_shadow_requests_total") == 0
    assert "the candidate is not used" in caplog.text


async def test_only_a_share_is_judged_again(checkpoint: Path) -> None:
    """The share is the operator's choice."""
    async with shadowed(checkpoint, Trial(judge_on(checkpoint, OverlapEngine()), None, 1e-9)) as gateway:
        await ask(gateway, *[BODY] * 20)
        await asyncio.sleep(0.05)
        assert value(gateway, "tierwise_shadow_requests_total") == 0


def test_vllm_in_this_process_takes_no_second_checkpoint(checkpoint: Path) -> None:
    """The message says which setting is wrong, and what to do instead."""
    settings = Settings(checkpoint=checkpoint, engine="vllm", shadow={"checkpoint": checkpoint})
    with pytest.raises(SettingsError, match=r"shadow\.checkpoint.*second release"):
        open_trial(settings)


def test_a_real_service_shadows_itself(tmp_path: Path) -> None:
    """The shipped checkpoint agrees with itself on every item."""
    with serving(tmp_path, shadow={"checkpoint": SHIPPED, "share": 1.0}) as service:

        def shadowed() -> bool:
            """Asked again: a request that comes before the candidate has passed its canaries is not tried on it."""
            httpx.post(f"{service.http}/v1/score", json=BODY, timeout=60.0).raise_for_status()
            return service.total("tierwise_shadow_items_total") >= len(BODY["items"])

        eventually(shadowed)
        assert all(
            count == 0 or 'outcome="same"' in name
            for name, count in service.metrics().items()
            if "shadow_items_total" in name
        )
