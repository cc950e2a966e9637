"""The pool against a real `vllm serve`."""

import asyncio
import re
from collections.abc import AsyncIterator

import httpx
import numpy as np
import psutil
import pytest
import pytest_asyncio

from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.engines.vllm_server import VllmServerEngine
from models.engines.vllm_server.engine import PoolOptions
from models.errors import EngineUnavailableError
from models.manifest import Manifest
from models.prompt import Prompt

from .conftest import CHECKPOINT, Reference, VllmServer

pytestmark = pytest.mark.asyncio(loop_scope="session")  # where the engine lives

OPTIONS = PoolOptions(model="judge", probe_every=0.5, probe_timeout=5.0)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pool(server: VllmServer, manifest: Manifest) -> AsyncIterator[VllmServerEngine]:
    """The pool of that one server."""
    made = VllmServerEngine([server.url], manifest, folder=CHECKPOINT, options=OPTIONS)
    await made.warm_up()
    yield made
    await made.close()


async def outstanding(server: VllmServer) -> float:
    """Requests running and waiting, by the server's own metrics."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{server.url}/metrics")).text
    return sum(float(v) for v in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.MULTILINE))


async def test_scores_and_cache_as_in_process(
    pool: VllmServerEngine, reference: Reference, requests: list[Prompt]
) -> None:
    """Over HTTP the same labels come back by id, near the float32 reference, and the prefix is found when repeated."""
    request = max(requests, key=lambda r: len(r.prefix.ids))
    prefix, suffixes = request.prefix.ids, [s.ids for s in request.suffixes[:8]]
    first = await pool.score(prefix, suffixes, Deadline.never(), scope="tenant")
    again = await pool.score(prefix, suffixes, Deadline.never(), scope="tenant")
    expected = np.stack([reference.label_logprobs([*prefix, *s]) for s in suffixes])
    assert set(first.status) == {ItemStatus.OK}
    assert np.abs(np.exp(first.logprobs) - np.exp(expected)).max() < 0.05
    assert again.cached_tokens > 0


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
        engine = VllmServerEngine([server.url], changed, folder=CHECKPOINT, options=OPTIONS)
        with pytest.raises(EngineUnavailableError, match="canary"):
            await engine.warm_up()
        await engine.close()


async def test_a_deadline_ends_the_servers_work(
    pool: VllmServerEngine, server: VllmServer, requests: list[Prompt]
) -> None:
    """Items are EXPIRED, and by the server's own count nothing of them runs or waits any more."""
    request = requests[0]
    suffixes = [s.ids for s in request.suffixes] * 5
    scores = await pool.score(request.prefix.ids, suffixes, Deadline.after(150), scope="late")
    assert set(scores.status) == {ItemStatus.EXPIRED}
    while await outstanding(server):  # noqa: ASYNC110 - another process, it sets no event
        await asyncio.sleep(0.05)
    assert set((await pool.score(request.prefix.ids, suffixes[:4], Deadline.never())).status) == {ItemStatus.OK}


async def test_explain_streams_the_servers_decode(
    pool: VllmServerEngine, requests: list[Prompt], manifest: Manifest
) -> None:
    """Ids come back as they are decoded, within the limit, without the end token."""
    request = requests[1]
    label, end = manifest.label_token_ids[0], manifest.rationale.end_token_id
    stream = pool.explain(request.prefix.ids, request.suffixes[0].ids, Deadline.never(), label=label, max_tokens=24)
    found = [token async for token in stream]
    assert len(found) <= 24
    assert end not in found


async def test_a_stopped_server_is_taken_out_and_comes_back(
    pool: VllmServerEngine, server: VllmServer, requests: list[Prompt]
) -> None:
    """On kill -STOP: the caller gets its deadline, probes take the server out, and -CONT brings it back, right."""
    request = requests[2]
    suffixes = [s.ids for s in request.suffixes[:8]]
    right = await pool.score(request.prefix.ids, suffixes, Deadline.never())
    family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
    for process in family:
        process.suspend()
    scores = await pool.score(request.prefix.ids, suffixes, Deadline.after(300))
    assert set(scores.status) == {ItemStatus.EXPIRED}
    while pool.health().alive:  # noqa: ASYNC110 - another process, it sets no event
        await asyncio.sleep(0.05)
    with pytest.raises(EngineUnavailableError):
        await pool.score(request.prefix.ids, suffixes, Deadline.never())
    for process in family:
        process.resume()
    while not pool.health().alive:  # noqa: ASYNC110 - another process, it sets no event
        await asyncio.sleep(0.05)
    back = await pool.score(request.prefix.ids, suffixes, Deadline.never())
    np.testing.assert_allclose(back.logprobs, right.logprobs, atol=0.05)
