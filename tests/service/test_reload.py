"""New checkpoints and new knowledge under a running service."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from models.engines.port import Scores
from models.manifest import SHIPPED, load_manifest, save_manifest
from service.access.keys import key_hash, key_id, new_key
from service.http.admin import create_admin
from service.metrics.state import State
from service.reload import follow_checkpoint, reload
from tests.service.conftest import Door, OverlapEngine, judge_on
from tests.service.processes import serving
from tests.service.test_knowledge import FakeLive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from models.deadline import Deadline
    from service.pipeline import Judge
    from service.settings import Settings

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]

BODY: dict[str, Any] = {"query": "abcd", "items": [{"id": "a", "title": "abcd"}]}


class WrongEngine(OverlapEngine):
    """Finds relevant what is not, as an engine with another checkpoint's labels would."""

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """The fake engine's answers, the other way round."""
        scores = await super().score(prefix, suffixes, deadline, scope=scope)
        return Scores(scores.logprobs[:, ::-1].copy(), scores.status)


def change(folder: Path, **fields: object) -> None:
    """Write another manifest into a checkpoint."""
    save_manifest(load_manifest(folder).model_copy(update=fields), folder)


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that may be changed."""
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


@pytest.fixture
async def door(open_door: OpenDoor, folder: Path) -> AsyncIterator[Door]:
    """A door on that checkpoint."""
    async with open_door(at=folder, deadline_ms=60_000) as opened:
        yield opened


def opening(engine: OverlapEngine) -> Callable[[Settings], Judge]:
    """Open the configured checkpoint behind a fake engine."""
    return lambda settings: judge_on(settings.checkpoint, engine)


async def test_what_has_not_changed_is_left_alone(door: Door) -> None:
    """A look without news opens no engine."""
    found = await reload(door.gateway, opening(OverlapEngine(raises=AssertionError())))
    assert (found.ok, found.checkpoint.outcome) == (True, "unchanged")


async def test_a_new_checkpoint_is_taken_while_requests_run(door: Door, folder: Path) -> None:
    """Requests under way end with the judge that they began with; the next ones get the new one."""
    held = asyncio.Event()
    door.engine.hold = held
    running = asyncio.create_task(door.post("/v1/score", BODY))
    while not door.engine.calls:  # noqa: ASYNC110 # the fake sets no event
        await asyncio.sleep(0.001)
    change(folder, name="next")
    found = await reload(door.gateway, opening(OverlapEngine()))
    after = (await door.post("/v1/score", {**BODY, "query": "abce"})).json()["versions"]
    held.set()
    before = (await running).json()["versions"]
    assert found.checkpoint.outcome == "taken"
    assert before["checkpoint"] != after["checkpoint"] == load_manifest(folder).checkpoint_id
    assert door.gateway.health.readiness().ok
    assert not door.engine.closed


async def test_the_old_engine_is_closed_in_the_end(open_door: OpenDoor, folder: Path) -> None:
    """Later than the last deadline, or with the process."""
    async with open_door(at=folder, deadline_ms=1.0, engine_grace_ms=0) as door:
        change(folder, name="next")
        await reload(door.gateway, opening(OverlapEngine()))
        async with asyncio.timeout(30):
            while not door.engine.closed:  # noqa: ASYNC110 # the fake sets no event
                await asyncio.sleep(0.05)
        assert not door.gateway.retired


async def test_wrong_canaries_refuse_a_checkpoint(door: Door, folder: Path) -> None:
    """The old one stays in use, and the new engine is closed."""
    change(folder, name="next")
    engine = WrongEngine()
    found = await reload(door.gateway, opening(engine))
    assert found.checkpoint.outcome == "refused"
    assert "4-Excellent" in found.checkpoint.detail
    assert engine.closed
    assert (await door.post("/v1/score", BODY)).json()["results"][0]["tier"] == "4-Excellent"
    registry = door.gateway.metrics.registry
    registry.register(State(door.gateway))
    assert registry.get_sample_value("tierwise_checkpoint_refused") == 1
    await reload(door.gateway, opening(OverlapEngine()))
    assert registry.get_sample_value("tierwise_checkpoint_refused") == 0


@pytest.mark.parametrize("engine", ["onnx-int8", "vllm"])
async def test_another_threshold_keeps_the_engine_and_what_is_cached(
    open_door: OpenDoor, folder: Path, engine: str
) -> None:
    """Beta and temperature come after the engine and after the cache: nothing is loaded and nothing scored again."""
    body = {"query": "abcd", "items": [{"id": "a", "title": "abxy"}]}
    async with open_door(at=folder, engine_=engine, deadline_ms=60_000) as door:
        before = (await door.post("/v1/score", body)).json()
        cache = door.gateway.pipeline.cache
        asked = len(door.engine.calls)
        change(folder, beta=0.9, temperature=0.9)
        found = await reload(door.gateway, opening(OverlapEngine(raises=AssertionError())))
        asked += len(load_manifest(folder).canaries)
        after = (await door.post("/v1/score", body)).json()
        assert found.checkpoint.outcome == "taken"
        assert len(door.engine.calls) == asked
        assert door.gateway.pipeline.cache is cache
    assert after["usage"]["cached_items"] == 1
    assert after["versions"]["tiers"] == load_manifest(folder).tiers_id != before["versions"]["tiers"]
    assert (before["results"][0]["tier"], after["results"][0]["tier"]) == ("3-Related", "2-Mismatch")


@pytest.mark.parametrize("engine", ["onnx-int8", "onnx-float32"])
async def test_what_canaries_ask_is_in_the_weights_of_int8(open_door: OpenDoor, folder: Path, engine: str) -> None:
    """There other canaries are another engine and another cache, as a restart would make; what they expect is not."""
    async with open_door(OverlapEngine(name=engine), at=folder, engine_=engine, deadline_ms=60_000) as door:
        cache = door.gateway.pipeline.cache
        first, *rest = load_manifest(folder).canaries
        recorded = first.model_copy(update={"probabilities": (0.98, 0.02, 0.0, 0.0)})
        change(folder, canaries=(recorded, *rest))
        found = await reload(door.gateway, opening(OverlapEngine(raises=AssertionError())))
        assert found.checkpoint.outcome == "taken"
        assert door.gateway.pipeline.judge.engine is door.engine
        assert door.gateway.pipeline.cache is cache
        change(folder, canaries=(recorded, *rest, first.model_copy(update={"query": "abcd "})))
        other = OverlapEngine(name=engine)
        found = await reload(door.gateway, opening(other))
        assert found.checkpoint.outcome == "taken"
        another = engine == "onnx-int8"
        assert (door.gateway.pipeline.judge.engine is other) == another
        assert (door.gateway.pipeline.cache is not cache) == another


async def test_what_stays_is_not_closed_with_what_goes(open_door: OpenDoor, folder: Path) -> None:
    """Neither when the judge before is retired, nor twice with the process."""
    async with open_door(at=folder, deadline_ms=60_000) as door:
        for beta in (0.4, 0.3):
            change(folder, beta=beta)
            await reload(door.gateway, opening(OverlapEngine(raises=AssertionError())))
        first = door.gateway.retired[0]
        await door.gateway.retire(first)
        assert not door.engine.closed
        change(folder, name="next")
        await reload(door.gateway, opening(OverlapEngine()))
        for pipeline in tuple(door.gateway.retired):
            assert not door.engine.closed
            await door.gateway.retire(pipeline)
        assert door.engine.closed


async def test_a_threshold_that_the_canaries_contradict_is_refused(door: Door, folder: Path) -> None:
    """The running engine is asked, and goes on as before."""
    change(folder, beta=0.99)
    found = await reload(door.gateway, opening(OverlapEngine(raises=AssertionError())))
    assert found.checkpoint.outcome == "refused"
    assert "4-Excellent" in found.checkpoint.detail
    assert not door.engine.closed
    assert (await door.post("/v1/score", BODY)).json()["results"][0]["tier"] == "4-Excellent"


async def test_an_engine_that_hangs_does_not_hold_up_a_reload(open_door: OpenDoor, folder: Path) -> None:
    """A threshold that could not be checked is not taken."""
    health = {"probe_timeout_seconds": 0.1}
    async with open_door(OverlapEngine(hang=True), at=folder, health=health) as door:
        change(folder, beta=0.4)
        found = await reload(door.gateway)
    assert found.checkpoint.outcome == "refused"
    assert "no answer" in found.checkpoint.detail


async def test_vllm_in_this_process_takes_no_second_checkpoint(open_door: OpenDoor, folder: Path) -> None:
    """Other weights are refused before anything is loaded, and the message says what to do instead."""
    async with open_door(at=folder, engine_="vllm") as door:
        change(folder, name="next")
        found = await reload(door.gateway, opening(OverlapEngine(raises=AssertionError())))
        assert (await door.post("/v1/score", BODY)).status_code == 200
    assert found.checkpoint.outcome == "refused"
    assert "second release" in found.checkpoint.detail


async def test_other_tiers_are_another_release(door: Door, folder: Path) -> None:
    """Clients know the tiers by name; a reload does not change them under their feet."""
    tiers = load_manifest(folder).tiers
    change(folder, tiers=(tiers[0], tiers[1].model_copy(update={"band": "Mid"}), *tiers[2:]))
    found = await reload(door.gateway, opening(OverlapEngine()))
    assert found.checkpoint.outcome == "refused"
    assert "other tiers" in found.checkpoint.detail


async def test_a_changed_folder_is_noticed(door: Door, folder: Path) -> None:
    """Where the operator wants that: once for each change, also when the change was refused."""
    engines: list[OverlapEngine] = []

    def open_(settings: Settings) -> Judge:
        engines.append(WrongEngine() if len(engines) == 0 else OverlapEngine())
        return judge_on(settings.checkpoint, engines[-1])

    watch = asyncio.create_task(follow_checkpoint(door.gateway, 0.01, open_))
    await asyncio.sleep(0.1)
    assert not engines
    for expected, name in ((1, "next"), (2, "last")):
        change(folder, name=name)
        async with asyncio.timeout(30):
            while len(engines) < expected or door.gateway.reloading.locked():  # noqa: ASYNC110 # the fake sets no event
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(engines) == expected
    watch.cancel()
    assert door.gateway.pipeline.judge.manifest.name == "last"


async def test_knowledge_is_looked_for_too(door: Door) -> None:
    """At once, not when the next look is due; a refusal says why."""
    door.gateway.knowledge = {"knowledge": FakeLive(["take"]), "tenants.a.knowledge": FakeLive(["refuse"])}
    found = await reload(door.gateway)
    assert found.knowledge["knowledge"].outcome == "taken"
    assert found.knowledge["tenants.a.knowledge"].outcome == "refused"
    assert "truncated" in found.knowledge["tenants.a.knowledge"].detail
    assert not found.ok


async def test_the_admin_door_reloads(door: Door) -> None:
    """POST only; 409 when something was refused."""
    transport = httpx.ASGITransport(create_admin(door.gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        assert (await client.get("/admin/reload")).status_code == 405
        good = await client.post("/admin/reload")
        door.gateway.knowledge = {"knowledge": FakeLive(["refuse"])}
        bad = await client.post("/admin/reload")
    assert (good.status_code, good.json()["checkpoint"]["outcome"]) == (200, "unchanged")
    assert (bad.status_code, bad.json()["knowledge"]["knowledge"]["outcome"]) == (409, "refused")


async def test_reloading_needs_the_admin_scope(open_door: OpenDoor) -> None:
    """Where there are keys, nobody reloads without one that may."""
    key = new_key()
    record = {"id": key_id(key), "sha256": key_hash(key), "tenant": "shop", "scopes": ["score"]}
    async with open_door(access={"keys": json.dumps({"keys": [record]})}) as door:
        transport = httpx.ASGITransport(create_admin(door.gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            assert (await client.post("/admin/reload")).status_code == 401
            assert (await client.post("/admin/reload", headers={"x-api-key": key})).status_code == 403


def test_real_workers_take_a_real_checkpoint(tmp_path: Path) -> None:
    """`tierwise serve` on a copy of the shipped one, whose threshold is calibrated anew under its feet."""
    folder = shutil.copytree(SHIPPED, tmp_path / "checkpoint")
    with serving(tmp_path, checkpoint=folder, workers=2) as service, httpx.Client(timeout=60.0) as client:
        before = client.post(f"{service.http}/v1/score", json=BODY).json()["versions"]
        change(folder, beta=min(0.99, load_manifest(folder).beta + 0.001))
        answer = client.post(f"{service.admin}/admin/reload")
        after = [httpx.post(f"{service.http}/v1/score", json=BODY, timeout=60.0).json()["versions"] for _ in range(10)]
        assert answer.status_code == 200
        assert [one["checkpoint"]["outcome"] for one in answer.json().values()] == ["taken", "taken"]
        assert {one["checkpoint"] for one in after} == {before["checkpoint"]}
        assert {one["tiers"] for one in after} == {load_manifest(folder).tiers_id} != {before["tiers"]}
        assert service.ready()
