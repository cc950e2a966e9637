"""Adapters on a pool's servers: several judges, each served under its own `model`."""

from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from models.deadline import Deadline
from models.engines.vllm_server import VllmServerEngine
from models.errors import EngineUnavailableError
from models.manifest import Manifest
from models.tiers import softmax

from .conftest import END, Peer, eventually, logprobs, turned_canaries

PREFIX = [2, 9, 10, 3]
SUFFIXES = [[n, n + 1, END] for n in range(10, 14)]
Pool = Callable[..., VllmServerEngine]


@pytest.fixture
def toys(manifest: Manifest) -> Manifest:
    """A judge that says what the base says, one tier further down."""
    own = {"name": "toys", "base": manifest.checkpoint_id, "canaries": turned_canaries(manifest)}
    return manifest.model_copy(update=own)


@pytest.fixture
async def base(peers: list[Peer], pool: Pool) -> VllmServerEngine:
    """A pool of two servers that serve the base and the adapter."""
    for peer in peers[:2]:
        peer.adapters["toys"] = 1
    engine = pool(*peers[:2])
    await engine.warm_up()
    return engine


@pytest.fixture
async def adapter(base: VllmServerEngine, toys: Manifest) -> AsyncIterator[VllmServerEngine]:
    """The adapter's judge."""
    made = base.adapter("toys", toys)
    yield made
    await made.close()


async def test_an_adapter_is_asked_by_its_name_and_counts_in_the_same_queue(
    peers: list[Peer], base: VllmServerEngine, adapter: VllmServerEngine
) -> None:
    """Equal prompts get each judge's own answer, and what one of them has sent is load to the other."""
    await adapter.warm_up()
    assert (base.name, adapter.name) == ("vllm-server", "vllm-server+toys")
    plain = await base.score(PREFIX, SUFFIXES, Deadline.after(5000))
    own = await adapter.score(PREFIX, SUFFIXES, Deadline.after(5000))
    said = softmax(np.array([logprobs([*PREFIX, *suffix]) for suffix in SUFFIXES], dtype=np.float32))
    np.testing.assert_allclose(np.exp(plain.logprobs), said, atol=1e-6)
    np.testing.assert_allclose(np.exp(own.logprobs), np.roll(said, 1, axis=1), atol=1e-6)
    assert sorted(body["model"] for peer in peers for body in peer.scored) == ["judge", "toys"]
    assert base.health().steps == adapter.health().steps > 0


async def test_a_server_with_another_adapter_is_refused_for_it_alone(
    peers: list[Peer], base: VllmServerEngine, adapter: VllmServerEngine
) -> None:
    """Its canaries come out otherwise; the base goes on there, the adapter elsewhere."""
    peers[0].adapters["toys"] = 2
    await adapter.warm_up()
    assert "1 of 2 servers ready" in adapter.health().detail
    assert "canary" in adapter.health().detail
    assert base.health().detail == "2 of 2 servers ready"


async def test_an_adapter_that_no_server_has_is_not_ready(
    peers: list[Peer], base: VllmServerEngine, adapter: VllmServerEngine
) -> None:
    """The message names what the servers do serve; the base is not touched by it."""
    for peer in peers[:2]:
        peer.adapters.clear()
    with pytest.raises(EngineUnavailableError, match=r"serves the models \['judge'\], not toys"):
        await adapter.warm_up()
    assert base.health().alive


async def test_a_server_that_is_wrong_about_the_base_serves_no_adapter(
    peers: list[Peer], base: VllmServerEngine, adapter: VllmServerEngine
) -> None:
    """Its adapter's canaries may still come out right, but it is not the server that was compared."""
    await adapter.warm_up()
    peers[0].rotation = 3
    await eventually(lambda: "1 of 2 servers ready" in base.health().detail)
    assert "1 of 2 servers ready" in adapter.health().detail
    assert "its base: canary" in adapter.health().detail
    peers[0].bodies.clear()
    for n in range(8):
        await adapter.score([2, 9 + n, 3], SUFFIXES, Deadline.after(5000))
    assert not peers[0].scored


async def test_closing_an_adapter_leaves_the_base_open(base: VllmServerEngine, adapter: VllmServerEngine) -> None:
    """The connections are the base's."""
    await adapter.warm_up()
    await adapter.close()
    assert base.health().alive
    await base.score(PREFIX, SUFFIXES, Deadline.after(5000))
