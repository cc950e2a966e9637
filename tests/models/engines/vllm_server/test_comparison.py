import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from models.deadline import Deadline
from models.engines.vllm_server import VllmServerEngine
from models.errors import EngineUnavailableError
from models.manifest import Manifest

from .conftest import FAST, Peer, eventually

Pool = Callable[..., VllmServerEngine]


async def refused(engine: VllmServerEngine) -> str:
    """Why the pool does not become ready."""
    with pytest.raises(EngineUnavailableError) as caught:
        await engine.warm_up()
    assert not engine.health().alive
    assert engine.health().detail == str(caught.value)
    return str(caught.value)


async def test_the_right_servers_are_admitted(peers: list[Peer], pool: Pool) -> None:
    """Servers that run the manifest's checkpoint must be ready after the comparison."""
    engine = pool(*peers)
    await engine.warm_up()
    assert engine.health().alive
    assert engine.health().detail == "3 of 3 servers ready"


async def test_other_weights_are_refused(peers: list[Peer], pool: Pool) -> None:
    """Scores of another model differ on the canaries; the message must name pair, expectation and finding."""
    peers[0].rotation = 1
    assert "canary" in (why := await refused(pool(peers[0])))
    assert "expected" in why
    assert "scored" in why or "recorded" in why


async def test_a_coarse_quantisation_is_refused(peers: list[Peer], pool: Pool) -> None:
    """The same tiers with probabilities far from the recorded ones are not the same checkpoint."""
    peers[0].softness = 8.0
    why = await refused(pool(peers[0]))
    assert "recorded" in why
    assert "quantisation" in why


async def test_another_tokenizer_is_refused(peers: list[Peer], pool: Pool) -> None:
    """Ids that mean other tokens must be found, for labels and for text, and both hashes shown."""
    peers[0].token_offset = 1
    why = await refused(pool(peers[0]))
    assert "label token 4" in why
    assert "its tokenizer is another one: hash" in why


async def test_a_missing_model_is_refused(peers: list[Peer], folder: Path, manifest: Manifest) -> None:
    """The server must serve the model under the name that was asked for."""
    engine = VllmServerEngine([peers[0].url], manifest, folder=folder, options=replace(FAST, model="other"))
    assert "serves the models ['judge'], not other" in await refused(engine)
    await engine.close()


async def test_a_short_context_is_refused(peers: list[Peer], pool: Pool) -> None:
    """A context that cannot hold the manifest's prompts would refuse the longest of them later."""
    peers[0].max_model_len = 256
    assert "its context is 256 tokens" in await refused(pool(peers[0]))


@pytest.mark.parametrize("mode", ["error", "garbage", "half", "other-labels", "refuse", "nan"])
async def test_a_broken_server_is_refused(mode: str, peers: list[Peer], pool: Pool) -> None:
    """What does not answer properly at the comparison must not get requests."""
    peers[0].mode = mode
    assert peers[0].url in await refused(pool(peers[0]))


async def test_a_server_that_is_not_there_is_refused(peers: list[Peer], pool: Pool) -> None:
    """No connection is a reason, with the address, not a hang."""
    await peers[0].stop()
    assert peers[0].url in await refused(pool(peers[0]))


async def test_one_wrong_server_does_not_stop_the_others(peers: list[Peer], pool: Pool) -> None:
    """The pool is ready with those that fit, and says what is wrong with the one that does not."""
    peers[1].rotation = 1
    engine = pool()
    await engine.warm_up()
    assert engine.health().alive
    assert "2 of 3 servers ready" in engine.health().detail
    assert "canary" in engine.health().detail


async def test_a_server_that_changes_its_model_is_taken_out(peers: list[Peer], pool: Pool) -> None:
    """Behind one address another model may appear without a broken connection: probes must notice."""
    engine = pool(peers[0])
    await engine.warm_up()
    peers[0].rotation = 1
    await eventually(lambda: not engine.health().alive)
    assert "canary" in engine.health().detail


async def test_answering_calls_all_the_time_proves_no_number(peers: list[Peer], pool: Pool) -> None:
    """A server that begins to answer wrongly is taken out under load as well, and the pool says that it was."""
    engine = pool(peers[0])
    await engine.warm_up()

    async def call_on() -> None:
        while engine.health().alive:
            await engine.score([40, 41], [[42], [43], [44]], Deadline.after(5_000))

    calling = asyncio.create_task(call_on())
    await eventually(lambda: len(peers[0].scored) > 2)
    assert engine.health().wrong == 0
    peers[0].rotation = 1
    with suppress(EngineUnavailableError):  # the call that was under way
        await asyncio.wait_for(calling, 20)
    assert engine.health().wrong == 1
    assert "canary" in engine.health().detail
