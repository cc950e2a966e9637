"""A remote engine that is killed, stopped, slowed down and cut off: errors in time, no wrong score, and back again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.chaos.conftest import LONG, QUICK_HEALTH, Caller, calling
from tests.proxy import TcpProxy
from tests.redis_server import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

DEADLINE_MS = 1_500
ROUNDS = 3 if LONG else 1


class EngineServer:
    """The engine's process; it can come back at the same port."""

    def __init__(self, cache_dir: Path) -> None:
        self.port = free_port()
        self._cache_dir = cache_dir
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; what calls it waits until it answers."""
        command = [sys.executable, "-m", "tests.chaos.completions_server", str(self.port), str(self._cache_dir)]
        self._process = subprocess.Popen(command)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def engine_server(cache_dir: Path) -> Iterator[EngineServer]:
    """A running engine server."""
    server = EngineServer(cache_dir)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Stage:
    """A service, its remote engine, and the proxy between them."""

    def __init__(self, caller: Caller, engine: EngineServer, proxy: TcpProxy) -> None:
        self.caller = caller
        self.engine = engine
        self.proxy = proxy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """One for all faults: each test leaves it whole."""
    with engine_server(folder) as engine:
        async with TcpProxy(engine.port) as proxy:
            chosen: dict[str, object] = {
                "engine": "vllm-server",
                "vllm": {"urls": [f"http://127.0.0.1:{proxy.port}"]},
                "cache": {"enabled": False},
                "deadline_ms": 60_000,
                "health": QUICK_HEALTH,
            }
            async with calling(folder, **chosen) as caller:
                yield Stage(caller, engine, proxy)


async def killed(stage: Stage) -> None:
    """The process is gone, and comes back later."""
    stage.engine.kill()


async def stopped(stage: Stage) -> None:
    """The process is there and does nothing."""
    stage.engine.signal(signal.SIGSTOP)


async def late(stage: Stage) -> None:
    """Every answer comes after any deadline."""
    stage.proxy.latency = 30.0


async def silent(stage: Stage) -> None:
    """Requests go out, answers are held back."""
    stage.proxy.silent = True


async def cut_off(stage: Stage) -> None:
    """Connections are reset, new ones too."""
    stage.proxy.refuses = True
    stage.proxy.reset()


async def slow_to_close(stage: Stage) -> None:
    """The process is gone, and connections to it take seconds to say so."""
    stage.proxy.linger = 5.0
    stage.engine.kill()


async def garbled(stage: Stage) -> None:
    """Answers arrive in pieces that are no answer."""
    stage.proxy.rewrite = lambda part: part[: len(part) // 2] + b"\x00"
    stage.proxy.reset()


async def changed(stage: Stage) -> None:
    """Well-formed answers whose numbers are others: digits of log-probabilities turned."""
    stage.proxy.rewrite = lambda part: part.replace(b'":-0', b'":-7') if b"top_logprobs" in part else part


FAULTS = (killed, stopped, late, silent, cut_off, slow_to_close, garbled, changed)


async def mend(stage: Stage, fault: Callable[[Stage], Awaitable[None]]) -> None:
    """Undo a fault."""
    if fault in {killed, slow_to_close}:
        stage.engine.start()
    if fault is stopped:
        stage.engine.signal(signal.SIGCONT)
    stage.proxy.heal()
    stage.proxy.reset()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_a_remote_engine_ends_in_errors_in_time_and_in_right_scores_after_it(
    stage: Stage, body: dict[str, Any], fault: Callable[[Stage], Awaitable[None]]
) -> None:
    """Calls end by their deadline, readiness goes and comes back by itself, liveness stays, no score is ever wrong."""
    for _ in range(ROUNDS):
        await stage.caller.until_ready()
        right = await stage.caller.score(body)
        assert right.status == 200
        await fault(stage)
        lost = asyncio.create_task(stage.caller.until_ready(False))
        while not lost.done():
            answers = await asyncio.gather(
                *(stage.caller.score(body, deadline_ms=DEADLINE_MS) for _ in range(2)), asyncio.sleep(0.2)
            )
            for answer in answers[:-1]:
                assert answer is not None
                assert answer.status in {200, 503, 504}
                assert answer.seconds < DEADLINE_MS / 1000 + 10  # a hang would be the service's own patience: a minute
                if answer.verdicts is not None and fault is not changed:  # which nobody can tell before a probe has
                    assert answer.verdicts == right.verdicts
        seconds = await lost
        after = await stage.caller.score(body, deadline_ms=DEADLINE_MS)
        assert after.status in {503, 504}
        await mend(stage, fault)
        back = await stage.caller.until_ready()
        again = await stage.caller.score(body)
        assert again.verdicts == right.verdicts
        print(f"engine {fault.__name__}: not ready after {seconds:.1f} s, ready {back:.1f} s after its end")  # noqa: T201
    assert stage.caller.service.process.poll() is None
