import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.engines.vllm_server import VllmServerEngine
from models.errors import EngineBusyError, EngineError, EngineUnavailableError, PromptTooLongError
from models.tiers import softmax

from .conftest import END, FAST, LABELS, Peer, eventually, logprobs

PREFIX = [2, 9, 10, 3]
SUFFIXES = [[n, n + 1, END] for n in range(10, 20)]
Pool = Callable[..., VllmServerEngine]


def expected(prefix: list[int] = PREFIX) -> np.ndarray:
    """Label probabilities that a good server gives."""
    return softmax(np.array([logprobs([*prefix, *suffix]) for suffix in SUFFIXES], dtype=np.float32))


async def test_scores_are_the_servers_own_in_one_call(peers: list[Peer], pool: Pool) -> None:
    """All items must travel in one call, as ids, with labels asked for by id, and come back in order."""
    engine = pool(peers[0])
    await engine.warm_up()
    scores = await engine.score(PREFIX, SUFFIXES, Deadline.after(2000))
    assert set(scores.status) == {ItemStatus.OK}
    np.testing.assert_allclose(np.exp(scores.logprobs), expected(), atol=1e-6)
    assert scores.label_mass is not None
    np.testing.assert_allclose(scores.label_mass, 0.98, atol=1e-5)
    (body,) = peers[0].scored
    assert body["prompt"] == [[*PREFIX, *s] for s in SUFFIXES]
    assert body["logprob_token_ids"] == list(LABELS)
    assert body["max_tokens"] == 1
    assert "cache_salt" not in body


async def test_no_items_need_no_server(peers: list[Peer], pool: Pool) -> None:
    """An empty request must be answered without a call."""
    engine = pool(peers[0])
    await engine.warm_up()
    scores = await engine.score(PREFIX, [], Deadline.after(2000))
    assert scores.logprobs.shape == (0, 4)
    assert not peers[0].scored


async def test_scope_salts_the_cache(peers: list[Peer], pool: Pool) -> None:
    """A tenant's prefixes must be cached apart from everyone else's."""
    engine = pool(peers[0])
    await engine.warm_up()
    await engine.score(PREFIX, SUFFIXES, Deadline.after(2000), scope="tenant-a")
    assert peers[0].scored[0]["cache_salt"] == "tenant-a"


async def test_sooner_deadlines_go_first(peers: list[Peer], pool: Pool) -> None:
    """The deadline must reach the server's scheduler as priority, and be left out where that is refused."""
    peers[1].takes_priority = False
    first, second = pool(peers[0]), pool(peers[1])
    await asyncio.gather(first.warm_up(), second.warm_up())
    await first.score(PREFIX, SUFFIXES, Deadline.after(5000))
    await first.score(PREFIX, SUFFIXES, Deadline.after(2000))
    await second.score(PREFIX, SUFFIXES, Deadline.after(2000))
    late, soon = (body["priority"] for body in peers[0].scored)
    assert soon < late
    assert "priority" not in peers[1].scored[0]


async def test_equal_prefixes_meet_the_same_server(peers: list[Peer], pool: Pool) -> None:
    """Requests with one prefix go to one server; different prefixes use them all."""
    engine = pool()
    await engine.warm_up()
    for n in range(30):
        for _ in range(2):
            await engine.score([2, 9, n], SUFFIXES[:3], Deadline.after(2000))
    where: dict[int, set[int]] = {}
    for index, peer in enumerate(peers):
        for body in peer.scored:
            where.setdefault(body["prompt"][0][2], set()).add(index)
    assert all(len(servers) == 1 for servers in where.values())
    assert len(Counter(next(iter(s)) for s in where.values())) == 3


async def test_a_long_queue_spills(peers: list[Peer], pool: Pool) -> None:
    """One hot prefix must not leave the other servers idle."""
    for peer in peers:
        peer.delay = 0.2
    engine = pool(options=replace(FAST, spill_tokens=100))
    await engine.warm_up()
    await asyncio.gather(*(engine.score(PREFIX, SUFFIXES, Deadline.after(4000)) for _ in range(9)))
    assert all(peer.scored for peer in peers)


@pytest.mark.parametrize("mode", ["error", "garbage", "half", "other-labels", "one-short", "nan", "busy"])
async def test_a_failing_server_is_covered_by_another(mode: str, peers: list[Peer], pool: Pool) -> None:
    """500, garbage, half a body, wrong labels, missing answers, NaN: the right scores must come from elsewhere."""
    engine = pool(*peers[:2], options=replace(FAST, probe_every=60))
    await engine.warm_up()
    await engine.score(PREFIX, SUFFIXES, Deadline.after(2000))
    preferred = peers[0] if peers[0].scored else peers[1]
    preferred.mode = mode
    scores = await engine.score(PREFIX, SUFFIXES, Deadline.after(2000))
    np.testing.assert_allclose(np.exp(scores.logprobs), expected(), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("error", EngineUnavailableError),
        ("garbage", EngineUnavailableError),
        ("half", EngineUnavailableError),
        ("other-labels", EngineUnavailableError),
        ("one-short", EngineUnavailableError),
        ("nan", EngineUnavailableError),
        ("busy", EngineBusyError),
        ("refuse", EngineError),
    ],
)
async def test_a_lone_failing_server_gives_a_typed_error(
    mode: str, error: type[EngineError], peers: list[Peer], pool: Pool
) -> None:
    """What cannot be answered must be refused with its kind, never answered with a wrong score."""
    engine = pool(peers[0], options=replace(FAST, probe_every=60))
    await engine.warm_up()
    peers[0].mode = mode
    with pytest.raises(error):
        await engine.score(PREFIX, SUFFIXES, Deadline.after(1000))


async def test_a_refusal_is_not_tried_elsewhere(peers: list[Peer], pool: Pool) -> None:
    """A request that is wrong is wrong on every server: asking them all only adds load."""
    engine = pool(*peers[:2], options=replace(FAST, probe_every=60))
    await engine.warm_up()
    for peer in peers:
        peer.mode = "refuse"
    with pytest.raises(EngineError, match="unknown parameter"):
        await engine.score(PREFIX, SUFFIXES, Deadline.after(1000))
    assert len(peers[0].scored) + len(peers[1].scored) == 1


async def test_the_deadline_ends_the_call_and_the_servers_work(peers: list[Peer], pool: Pool) -> None:
    """When time is over all items are EXPIRED, and the connection is closed so that the server stops working."""
    engine = pool(peers[0], options=replace(FAST, probe_every=60))
    await engine.warm_up()
    peers[0].mode = "hang"
    scores = await engine.score(PREFIX, SUFFIXES, Deadline.after(150))
    assert set(scores.status) == {ItemStatus.EXPIRED}
    assert np.isnan(scores.logprobs).all()
    await eventually(lambda: peers[0].broken_off == 1)


async def test_a_leaving_caller_ends_the_servers_work(peers: list[Peer], pool: Pool) -> None:
    """Cancelling the call must close the connection: abandoned work is nobody's work."""
    engine = pool(peers[0], options=replace(FAST, probe_every=60))
    await engine.warm_up()
    peers[0].mode = "hang"
    call = asyncio.create_task(engine.score(PREFIX, SUFFIXES, Deadline.never()))
    await eventually(lambda: bool(peers[0].scored))
    call.cancel()
    await eventually(lambda: peers[0].broken_off == 1)
    assert engine.health().queued_tokens == 0


async def test_a_hanging_server_is_taken_out_and_comes_back(peers: list[Peer], pool: Pool) -> None:
    """Accepting and never answering is found by probes; calls under way move on; it returns by itself."""
    engine = pool(*peers[:2])
    await engine.warm_up()
    await engine.score(PREFIX, SUFFIXES, Deadline.after(2000))
    preferred = peers[0] if peers[0].scored else peers[1]
    preferred.mode = "hang"
    scores = await engine.score(PREFIX, SUFFIXES, Deadline.after(5000))
    np.testing.assert_allclose(np.exp(scores.logprobs), expected(), atol=1e-6)
    assert preferred.url in engine.health().detail
    assert engine.health().alive
    seen = len(preferred.scored)
    await engine.score(PREFIX, SUFFIXES, Deadline.after(2000))
    assert len(preferred.scored) == seen
    preferred.mode = "good"
    await eventually(lambda: engine.health().detail == "2 of 2 servers ready")
    await engine.score(PREFIX, SUFFIXES, Deadline.after(2000))
    assert len(preferred.scored) == seen + 1


async def test_readiness_goes_with_the_last_server_and_returns_with_it(peers: list[Peer], pool: Pool) -> None:
    """With nobody left, calls fail at once and health says why; a restarted server brings both back."""
    engine = pool(peers[0])
    await engine.warm_up()
    await peers[0].stop()
    await eventually(lambda: not engine.health().alive)
    with pytest.raises(EngineUnavailableError, match="0 of 1 servers ready"):
        await engine.score(PREFIX, SUFFIXES, Deadline.never())
    await peers[0].start()
    await eventually(lambda: engine.health().alive)
    scores = await engine.score(PREFIX, SUFFIXES, Deadline.after(2000))
    assert set(scores.status) == {ItemStatus.OK}


async def test_a_busy_server_is_not_a_dead_one(peers: list[Peer], pool: Pool) -> None:
    """Probes that wait behind real work must not take out a server that answers real calls."""
    engine = pool(peers[0], options=replace(FAST, probe_timeout=0.01))
    await engine.warm_up()
    peers[0].delay = 0.03
    until = asyncio.get_running_loop().time() + 0.8
    while asyncio.get_running_loop().time() < until:
        await asyncio.gather(*(engine.score(PREFIX, SUFFIXES, Deadline.after(2000)) for _ in range(4)))
        assert engine.health().alive


async def test_retries_stay_within_the_budget(peers: list[Peer], pool: Pool) -> None:
    """Two hundred calls over failing servers may cause at most a tenth more."""
    engine = pool(options=replace(FAST, probe_every=60))
    await engine.warm_up()
    for peer in peers:
        peer.mode = "busy"
    for n in range(200):
        with pytest.raises(EngineBusyError):
            await engine.score([2, n], SUFFIXES, Deadline.after(1000))
    calls = sum(len(peer.scored) for peer in peers)
    assert 200 < calls <= 200 + 0.1 * 200 + 1


async def test_hedging_is_off_and_can_be_turned_on(peers: list[Peer], pool: Pool) -> None:
    """A slow server is waited for by default; with a hedge, a second server answers instead."""
    plain = pool(*peers[:2], options=replace(FAST, probe_every=60))
    hedged = pool(*peers[:2], options=replace(FAST, probe_every=60, hedge_after=0.05))
    await asyncio.gather(plain.warm_up(), hedged.warm_up())
    await plain.score(PREFIX, SUFFIXES, Deadline.after(2000))
    preferred, other = (peers[0], peers[1]) if peers[0].scored else (peers[1], peers[0])
    preferred.mode = "hang"
    assert set((await plain.score(PREFIX, SUFFIXES, Deadline.after(200))).status) == {ItemStatus.EXPIRED}
    assert not other.scored
    scores = await hedged.score(PREFIX, SUFFIXES, Deadline.after(2000))
    np.testing.assert_allclose(np.exp(scores.logprobs), expected(), atol=1e-6)
    assert len(other.scored) == 1


async def test_prompts_longer_than_the_context_are_refused(peers: list[Peer], pool: Pool) -> None:
    """A prompt that a server would cut or reject must not be sent."""
    engine = pool(peers[0])
    await engine.warm_up()
    with pytest.raises(PromptTooLongError, match="512"):
        await engine.score([2] * 500, [[3] * 20], Deadline.after(1000))


async def test_explain_streams_ids_until_the_end(peers: list[Peer], pool: Pool) -> None:
    """Decoded ids come in order, with the label behind the prompt and the end token as the stop."""
    engine = pool(peers[0])
    await engine.warm_up()
    stream = engine.explain(PREFIX, [11, END], Deadline.after(2000), label=4, max_tokens=9)
    assert [token async for token in stream] == [40, 41]
    body = next(b for b in peers[0].bodies if b.get("stream"))
    assert body["prompt"] == [*PREFIX, 11, END, 4]
    assert body["max_tokens"] == 9
    assert body["stop_token_ids"] == [END]


async def test_a_rationale_that_breaks_off_is_an_error(peers: list[Peer], pool: Pool) -> None:
    """A stream without its end must not pass for a whole rationale."""
    engine = pool(peers[0], options=replace(FAST, probe_every=60))
    await engine.warm_up()
    peers[0].mode = "breaks-off"
    with pytest.raises(EngineUnavailableError, match="broke off"):
        _ = [t async for t in engine.explain(PREFIX, [11], Deadline.after(2000), label=4, max_tokens=9)]


async def test_explain_ends_with_the_deadline(peers: list[Peer], pool: Pool) -> None:
    """A server that hangs while decoding must not hold the caller past the deadline."""
    engine = pool(peers[0], options=replace(FAST, probe_every=60))
    await engine.warm_up()
    peers[0].mode = "hang"
    async with asyncio.timeout(2):
        assert [t async for t in engine.explain(PREFIX, [11], Deadline.after(150), label=4, max_tokens=9)] == []


async def test_a_closed_pool_refuses(peers: list[Peer], pool: Pool) -> None:
    """After close there is no engine, and closing again is allowed."""
    engine = pool(peers[0])
    await engine.warm_up()
    await engine.close()
    await engine.close()
    with pytest.raises(EngineUnavailableError):
        await engine.score(PREFIX, SUFFIXES, Deadline.after(100))
