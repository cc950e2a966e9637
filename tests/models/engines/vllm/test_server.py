"""The pool against a real `vllm serve`."""

import asyncio
import re
from dataclasses import replace
from uuid import uuid4

import httpx
import numpy as np
import pytest

from models.deadline import Deadline
from models.engines.port import ItemStatus, Scores
from models.engines.vllm_server import VllmServerEngine
from models.errors import EngineUnavailableError
from models.manifest import Manifest
from models.prompt import Prompt

from .conftest import CHECKPOINT, PATIENT_POOL, Reference, VllmServer, until
from .proxy import FAULTS, Proxy

pytestmark = pytest.mark.asyncio(loop_scope="session")  # where the engine lives

SERVED_ERROR = 0.05  # label probabilities in bfloat16 beside float32
HASTY_POOL = replace(PATIENT_POOL, probe_timeout=2.0)


async def outstanding(server: VllmServer) -> float:
    """Requests running and waiting, by the server's own metrics."""
    async with httpx.AsyncClient(timeout=60.0) as client:
        text = (await client.get(f"{server.url}/metrics")).text
    return sum(float(v) for v in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE))


async def until_idle(server: VllmServer) -> None:
    """Wait until nothing runs or waits there."""
    while await outstanding(server):  # noqa: ASYNC110 - another process, it sets no event
        await asyncio.sleep(0.01)


async def in_the_middle(pool: VllmServerEngine, server: VllmServer, request: Prompt) -> asyncio.Task[Scores]:
    """A long request that the server has begun with."""
    suffixes = [s.ids for s in request.suffixes] * 5
    call = asyncio.create_task(pool.score(request.prefix.ids, suffixes, Deadline.never(), scope=uuid4().hex))
    while not await outstanding(server):  # noqa: ASYNC110 - another process, it sets no event
        await asyncio.sleep(0.01)
    return call


async def check(pool: VllmServerEngine, reference: Reference, request: Prompt) -> None:
    """The pool answers right."""
    prefix, suffixes = request.prefix.ids, [s.ids for s in request.suffixes[:4]]
    scores = await pool.score(prefix, suffixes, Deadline.never())
    assert set(scores.status) == {ItemStatus.OK}
    expected = np.stack([reference.label_logprobs([*prefix, *s]) for s in suffixes])
    assert np.abs(np.exp(scores.logprobs) - np.exp(expected)).max() < SERVED_ERROR


async def test_scores_and_cache_as_in_process(
    pool: VllmServerEngine, reference: Reference, requests: list[Prompt]
) -> None:
    """Over HTTP the same labels come back by id, near the float32 reference, and the prefix is found when repeated."""
    request = max(requests, key=lambda r: len(r.prefix.ids))
    prefix, suffixes = request.prefix.ids, [s.ids for s in request.suffixes[:8]]
    await pool.score(prefix, suffixes, Deadline.never(), scope="tenant")
    again = await pool.score(prefix, suffixes, Deadline.never(), scope="tenant")
    assert again.cached_tokens > 0
    await check(pool, reference, request)


async def test_the_comparison_refuses_what_differs(server: VllmServer, manifest: Manifest) -> None:
    """A manifest whose labels are others' ids, or whose canaries were recorded elsewhere, does not fit this server."""
    tiers = manifest.tiers
    swapped = tuple(t.model_copy(update={"token_id": o.token_id}) for t, o in zip(tiers, tiers[::-1], strict=True))
    moved = tuple(
        c.model_copy(update={"probabilities": c.probabilities[1:] + c.probabilities[:1]}) for c in manifest.canaries
    )
    for changed in (
        manifest.model_copy(update={"tiers": swapped}),
        manifest.model_copy(update={"canaries": moved}),
    ):
        engine = VllmServerEngine([server.url], changed, folder=CHECKPOINT, options=PATIENT_POOL)
        with pytest.raises(EngineUnavailableError, match="canary"):
            await engine.warm_up()
        await engine.close()


async def test_a_deadline_and_a_leaving_caller_end_the_servers_work(
    pool: VllmServerEngine, server: VllmServer, requests: list[Prompt]
) -> None:
    """Items are EXPIRED, and by the server's own count nothing of them runs or waits any more."""
    request = requests[0]
    suffixes = [s.ids for s in request.suffixes] * 5
    scores = await pool.score(request.prefix.ids, suffixes, Deadline.after(150), scope="late")
    assert set(scores.status) == {ItemStatus.EXPIRED}
    await until_idle(server)
    call = await in_the_middle(pool, server, request)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until_idle(server)
    assert set((await pool.score(request.prefix.ids, suffixes[:4], Deadline.never())).status) == {ItemStatus.OK}


async def test_explain_streams_the_servers_decode(
    pool: VllmServerEngine, requests: list[Prompt], manifest: Manifest
) -> None:
    """Ids come back as they are decoded, within the limit, without the end token."""
    request = requests[1]
    label, end = manifest.label_token_ids[0], manifest.rationale.end_token_id
    stream = pool.explain(request.prefix.ids, request.suffixes[0].ids, Deadline.never(), label=label, max_tokens=24)
    found = [token async for token in stream]
    assert 0 < len(found) <= 24
    assert end not in found


@pytest.mark.parametrize("fault", list(FAULTS))
async def test_a_spoilt_answer_is_a_typed_error_and_the_next_one_is_right(
    server: VllmServer, manifest: Manifest, reference: Reference, requests: list[Prompt], fault: str
) -> None:
    """Alone the spoiling server fails the call and is taken out; when its answers are good again it comes back."""
    prefix, suffixes = requests[3].prefix.ids, [s.ids for s in requests[3].suffixes[:8]]
    async with Proxy(server.url) as proxy:
        alone = VllmServerEngine([proxy.url], manifest, folder=CHECKPOINT, options=PATIENT_POOL)
        await alone.warm_up()
        proxy.fault = fault
        with pytest.raises(EngineUnavailableError):
            await alone.score(prefix, suffixes, Deadline.after(60_000))
        await until(lambda: not alone.health().alive)
        proxy.fault = None
        await until(lambda: alone.health().alive)
        await check(alone, reference, requests[3])
        await alone.close()


async def test_another_server_answers_for_one_that_fails(
    server: VllmServer, manifest: Manifest, reference: Reference, requests: list[Prompt]
) -> None:
    """With a good server beside it, a failing one is not seen by callers: within the retry budget, then left out."""
    async with Proxy(server.url) as proxy:
        both = VllmServerEngine([proxy.url, server.url], manifest, folder=CHECKPOINT, options=PATIENT_POOL)
        await both.warm_up()
        proxy.fault = "500"
        first = next(r for r in requests if both._route(r.prefix.ids, "")[0].url == proxy.url)
        await check(both, reference, first)
        await until(lambda: "1 of 2" in both.health().detail)
        for request in requests:
            await check(both, reference, request)
        await both.close()


async def test_a_stopped_server_is_taken_out_and_comes_back(
    pool: VllmServerEngine, server: VllmServer, manifest: Manifest, reference: Reference, requests: list[Prompt]
) -> None:
    """On kill -STOP: the caller gets its deadline, probes take the server out, and -CONT brings it back, right."""
    request = requests[2]
    suffixes = [s.ids for s in request.suffixes[:8]]
    hasty = VllmServerEngine([server.url], manifest, folder=CHECKPOINT, options=HASTY_POOL)
    await hasty.warm_up()
    family = server.family
    for process in family:
        process.suspend()
    scores = await pool.score(request.prefix.ids, suffixes, Deadline.after(300))
    assert set(scores.status) == {ItemStatus.EXPIRED}
    await until(lambda: not hasty.health().alive)
    with pytest.raises(EngineUnavailableError):
        await hasty.score(request.prefix.ids, suffixes, Deadline.never())
    for process in family:
        process.resume()
    await until(lambda: hasty.health().alive)
    await hasty.close()
    await check(pool, reference, request)


async def test_a_killed_server_fails_its_calls_and_is_found_again(
    pool: VllmServerEngine, server: VllmServer, reference: Reference, requests: list[Prompt]
) -> None:
    """On kill -9 in the middle of a request: a typed error; a new server at its address is compared and used."""
    request = requests[0]
    call = await in_the_middle(pool, server, request)
    await server.kill()
    with pytest.raises(EngineUnavailableError):
        await call
    await until(lambda: not pool.health().alive)
    await server.start()
    await until(lambda: pool.health().alive)
    await check(pool, reference, request)
