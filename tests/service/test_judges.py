"""Several judges over one base, chosen by `model` in a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from models.errors import EngineUnavailableError
from models.manifest import load_manifest
from models.tiers import softmax
from service import errors
from service.client import Client, Item
from service.fetch import Fetcher
from service.gateway import assemble
from service.grpc.door import GrpcDoor
from service.http.app import create_app
from service.http.door import HttpDoor
from service.metrics.state import State
from service.settings import Settings
from service.shadow import Trial
from service.sockets import listen_on, reserve
from tests.service.conftest import OverlapEngine, judge_on
from tests.service.judges import PAIR, TURNED, Served, adapter_on, judges_on, served
from tests.service.test_shadow import counted, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from service.door import Door

PATHS = ["/v1/score", "/v1/explain", "/v1/rerank", "/v2/rerank"]


@pytest.fixture
async def three(checkpoint: Path) -> AsyncIterator[Served]:
    """Three judges behind a door."""
    async with served(checkpoint) as opened:
        yield opened


def tiers_of(answer: dict[str, Any]) -> dict[str, str]:
    """Tier by title's place."""
    return {result["id"]: result["tier"] for result in answer["results"]}


async def test_each_judge_answers_for_itself(three: Served) -> None:
    """A request gets the scores, tiers and versions of the judge that it names; without a name the checkpoint's."""
    found = {name: (await three.ask(name)).json() for name in (None, "tiny", TURNED, PAIR)}
    assert [answer["model"] for answer in found.values()] == ["tiny", "tiny", TURNED, PAIR]
    assert tiers_of(found[None]) == tiers_of(found["tiny"]) == {"0": "4-Excellent", "1": "1-Irrelevant"}
    assert tiers_of(found[TURNED]) == {"0": "1-Irrelevant", "1": "4-Excellent"}
    assert tiers_of(found[PAIR]) == {"0": "2-Mismatch!", "1": "1-Irrelevant!"}
    assert len({answer["versions"]["checkpoint"] for answer in found.values()}) == 3
    assert found[PAIR]["versions"]["tiers"] != found[None]["versions"]["tiers"]
    by_id = (await three.ask(found[TURNED]["versions"]["checkpoint"])).json()
    assert by_id["model"] == TURNED
    assert by_id["results"] == found[TURNED]["results"]


@pytest.mark.parametrize("path", PATHS)
async def test_an_unknown_judge_is_404_and_the_known_ones_are_named(three: Served, path: str) -> None:
    """Scores of another judge than was asked for are wrong scores; a long name is not sent back whole."""
    answer = await three.ask("x" * 500, path=path)
    assert answer.status_code == 404
    problem = answer.json()
    assert problem["code"] == "not-found"
    assert "send 'tiny' or 'turned' or 'pair', or leave it out" in problem["detail"]
    assert len(problem["detail"]) < 300
    assert problem["errors"][0]["pointer"] == "#/model"
    assert not three.base.calls


@pytest.mark.parametrize("path", PATHS)
async def test_every_route_takes_a_judge(three: Served, path: str) -> None:
    """The engine of the one that is named computes, and no other."""
    three.turned.rationale = (1,)
    assert (await three.ask(TURNED, path=path)).status_code == 200
    assert three.turned.calls
    assert not three.base.calls
    assert not three.pair.calls


async def test_no_judge_reads_what_another_one_has_left_in_the_cache(three: Served) -> None:
    """Whatever the order: an answer with hits is the answer without, and each judge computes an item once."""
    titles = ["abcd", "abwx", "wxyz", "dcba"]
    async with served(three.gateway.settings.checkpoint, cache={"enabled": False}) as plain:
        for turn in range(3):
            for name in (None, PAIR, TURNED)[:: -1 if turn % 2 else 1]:
                fresh, cached = await plain.ask(name, *titles), await three.ask(name, *titles)
                assert cached.json()["results"] == fresh.json()["results"]
                assert cached.json()["usage"]["cached_items"] == (len(titles) if turn else 0)
    for engine in (three.base, three.turned, three.pair):
        assert sum(len(suffixes) for _, suffixes in engine.calls) == len(titles)
    caches = [pipeline.cache for pipeline in three.gateway.judges]
    assert all(cache is not None and caches[0] is not None and cache.memory is caches[0].memory for cache in caches)


async def test_requests_of_two_judges_in_flight_are_not_joined(three: Served) -> None:
    """Equal requests share one computation only where one judge is asked."""
    gate = asyncio.Event()
    for engine in (three.base, three.turned):
        engine.hold = gate
    asked = [asyncio.create_task(three.ask(name, "abcd")) for name in (None, TURNED, None, TURNED)]
    async with asyncio.timeout(20):
        while not (three.base.calls and three.turned.calls):  # noqa: ASYNC110 # the fake engine sets no event
            await asyncio.sleep(0.001)
    gate.set()
    found = [tiers_of((await one).json())["0"] for one in asked]
    assert found == ["4-Excellent", "1-Irrelevant"] * 2
    assert (len(three.base.calls), len(three.turned.calls)) == (1, 1)


async def test_an_adapter_that_answers_wrongly_is_refused_alone(three: Served) -> None:
    """503 for requests that name it, saying why; the others answer, the process stays ready, and it comes back."""
    assert (await three.ask(TURNED)).json()["usage"]["cached_items"] == 0
    three.turned.turned = False
    await three.gateway.health.probe()
    refused = await three.ask(TURNED)
    assert refused.status_code == 503
    assert refused.json()["detail"].startswith("model 'turned': self-test: canary 'abcd' x 'abcd': expected 1-Irr")
    assert refused.headers["retry-after"] == "1"
    assert (await three.ask()).status_code == (await three.ask(PAIR)).status_code == 200
    report = (await three.client.get("/readyz")).raise_for_status().json()
    assert {judge["name"]: judge["ok"] for judge in report["judges"]} == {TURNED: False, PAIR: True}
    assert "expected 1-Irrelevant" in report["judges"][0]["detail"]
    three.turned.turned = True
    await three.gateway.health.probe()
    again = (await three.ask(TURNED)).json()
    assert again["usage"]["cached_items"] == 0  # what it scored before the wrong canary is in doubt
    assert tiers_of(again) == {"0": "1-Irrelevant", "1": "4-Excellent"}


async def test_the_base_takes_every_judge_away(three: Served) -> None:
    """What lies over wrong weights is not to be believed, whatever its own canaries say, nor what it has scored."""
    await three.ask(TURNED)
    right = three.base._row
    three.base._row = lambda prefix, suffix: right(prefix, suffix)[::-1].copy()  # type: ignore[method-assign]
    await three.gateway.health.probe()
    for name in (None, TURNED, PAIR):
        refused = await three.ask(name)
        assert refused.status_code == 503
        assert "self-test: canary" in refused.json()["detail"]
    assert (await three.client.get("/readyz")).status_code == 503
    three.base._row = right  # type: ignore[method-assign]
    await three.gateway.health.probe()
    assert (await three.ask(TURNED)).json()["usage"]["cached_items"] == 0


async def test_an_adapter_that_does_not_answer_is_refused_alone(three: Served) -> None:
    """After as many probes in a row as the settings say: nobody else sees that it is silent."""
    three.pair.raises = EngineUnavailableError("no server has it")
    for _ in range(3):
        assert (await three.ask(PAIR, "abcd")).status_code == 503  # the engine's own word
        await three.gateway.health.probe()
    refused = (await three.ask(PAIR)).json()["detail"]
    assert refused.startswith("model 'pair': self-test: 3 probes in a row without an answer")
    assert three.gateway.health.readiness().ok
    three.pair.raises = None
    await three.gateway.health.probe()
    assert (await three.ask(PAIR)).status_code == 200


async def test_traffic_comes_once_every_judge_was_looked_at(checkpoint: Path) -> None:
    """A rollout must not send an adapter's requests where it was not tested yet; one that fails does not stop it."""
    base, adapters = judges_on(checkpoint)
    turned: Any = adapters[0].engine
    turned.turned, turned.hold = False, asyncio.Event()
    gateway = assemble(Settings(), base, Fetcher(None, 1.0), embedded=True, adapters=adapters)
    watch = asyncio.create_task(gateway.health.watch())
    async with asyncio.timeout(20):
        await gateway.health.tested.wait()
        assert "not tested yet: turned" in gateway.health.readiness().failing
        turned.hold.set()
        async for ready in gateway.health.changes():
            if ready:
                break
    with pytest.raises(errors.NotReadyError, match="model 'turned'"):
        gateway.serving(TURNED)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    await gateway.close()
    assert all(judge.engine.closed for judge in (base, *adapters))  # type: ignore[attr-defined] # the fake engine


async def test_canaries_that_the_base_answers_alike_prove_nothing(checkpoint: Path) -> None:
    """An adapter that was not loaded would pass them, so it is refused, and the message says what to record."""
    base, _ = judges_on(checkpoint)
    rows = [softmax(OverlapEngine._row(range(20, 24), range(n, n + 4))[None])[0].tolist() for n in (20, 30)]
    idle = adapter_on(base, "idle", OverlapEngine(name="overlap+idle"), rows)
    gateway = assemble(Settings(), base, Fetcher(None, 1.0), embedded=True, adapters=[idle])
    await gateway.health.probe()
    assert gateway.health.readiness().ok
    with pytest.raises(errors.NotReadyError, match="record a pair that the base answers otherwise"):
        gateway.serving("idle")
    await gateway.close()


async def test_models_lists_every_judge(three: Served) -> None:
    """Each with its own tiers and thresholds, the checkpoint's first."""
    cards = (await three.client.get("/v1/models")).json()["data"]
    assert [(card["id"], card["parent"], card["engine"]) for card in cards] == [
        ("tiny", None, "overlap"),
        (TURNED, "tiny", "overlap+turned"),
        (PAIR, "tiny", "overlap+pair"),
    ]
    assert [len(card["tiers"]) for card in cards] == [4, 4, 2]
    assert cards[2]["beta"] == 0.7


async def test_metrics_keep_judges_apart(three: Served) -> None:
    """Where a checkpoint is a label: one series for each judge that answered."""
    for name in (None, TURNED, PAIR):
        await three.ask(name)
    registry = three.gateway.metrics.registry
    registry.register(State(three.gateway))
    samples = [sample for family in registry.collect() for sample in family.samples]
    names = {s.labels["name"] for s in samples if s.name == "tierwise_checkpoint_info"}
    assert names == {"tiny", TURNED, PAIR}
    judged = {s.labels["checkpoint"].split("@")[0] for s in samples if s.name == "tierwise_item_tiers_total"}
    assert judged == {"tiny", TURNED, PAIR}
    ready = {s.labels["model"]: s.value for s in samples if s.name == "tierwise_judge_ready"}
    assert ready == {"tiny": 1.0, TURNED: 1.0, PAIR: 1.0}


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_the_client_names_a_judge_over_both_doors(three: Served, scheme: str) -> None:
    """Tiers come back as that judge's, also where it has fewer; an unknown one is NotFoundError."""
    three.pair.rationale = (1,)
    if scheme == "grpc":
        with reserve("grpc_port", "127.0.0.1", 0) as port:
            await _talk(GrpcDoor(three.gateway, port))
    else:
        with listen_on("http_port", "127.0.0.1", 0) as bound:
            await _talk(HttpDoor("http", create_app(three.gateway), bound, three.gateway.settings))


async def _talk(door: Door) -> None:
    items = [Item(id="0", title="abcd"), Item(id="1", title="wxyz")]
    serving = asyncio.create_task(door.serve())
    async with Client(door.address, deadline_ms=30_000) as client:
        for name, best in ((None, "4-Excellent"), (TURNED, "4-Excellent"), (PAIR, "2-Mismatch!")):
            reply = await client.score("abcd", items, model=name)
            assert reply.model == (name or "tiny")
            assert reply.results[0].tier == best
            assert reply.results[0].id == ("1" if name == TURNED else "0")
            assert len(reply.results[0].probabilities or ()) == (2 if name == PAIR else 4)
        explained = await client.explain("abcd", items[0], model=PAIR)
        assert (explained.model, explained.result.tier) == (PAIR, "2-Mismatch!")
        with pytest.raises(errors.NotFoundError, match="send 'tiny' or 'turned' or 'pair'"):
            await client.score("abcd", items, model="garden")
    door.abort()
    await serving


async def test_a_candidate_checkpoint_is_compared_with_the_base_alone(checkpoint: Path) -> None:
    """What an adapter answered says nothing of a candidate for what it lies over."""
    async with served(checkpoint, Trial(judge_on(checkpoint, OverlapEngine()), None, 1.0)) as three:
        await asyncio.sleep(0.05)  # the candidate's canaries
        for name in (TURNED, PAIR, None):
            await three.ask(name)
        await counted(three.gateway, 1, "compared")
        assert value(three.gateway, "tierwise_shadow_items_total", outcome="same") == 2
        assert value(three.gateway, "tierwise_shadow_items_total") == 2


async def test_a_candidate_index_is_tried_with_the_judge_that_answered(checkpoint: Path) -> None:
    """Other knowledge that changes nothing flips no tier of any judge."""
    async with served(checkpoint, Trial(None, Fetcher(None, 1.0), 1.0)) as three:
        for name in (TURNED, PAIR, None):
            await three.ask(name)
        await counted(three.gateway, 3, "compared")
        assert value(three.gateway, "tierwise_shadow_items_total", outcome="same") == 6


def test_the_manifest_of_a_base_says_so(checkpoint: Path) -> None:
    """A whole model lies over nothing, and its id is what it was before there were adapters."""
    manifest = load_manifest(checkpoint)
    assert manifest.base is None
    assert manifest.model_copy(update={"base": "other@0"}).checkpoint_id != manifest.checkpoint_id
