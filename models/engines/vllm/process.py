"""Keeps one AsyncLLM alive: starts it off the event loop, watches its steps, replaces it when dead or hung for good.

AsyncLLM's engine core and workers are processes of their own. A dead one (`EngineDeadError`) stays dead, so it is
replaced. A stopped one says nothing at all: while work is outstanding and no step ends, the engine is hung. When there
is no work, one token through the whole model every beat is the work. Steps end in between: busy is not hung.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psutil
from vllm import SamplingParams
from vllm.inputs import tokens_input
from vllm.v1.engine.async_llm import AsyncLLM

from models.engines.vllm.leash import Leash
from models.engines.vllm.meter import Meter
from models.errors import CheckpointError, EngineUnavailableError

if TYPE_CHECKING:
    from vllm.engine.arg_utils import AsyncEngineArgs

log = logging.getLogger(__name__)

Prepare = Callable[[AsyncLLM], Awaitable[None]]
_FIRST: Final = -(2**62)  # priority of a probe
_PROBE: Final = SamplingParams(max_tokens=1, temperature=0, detokenize=False)
_END_SECONDS: Final = 5.0  # for the engine to end by itself before it is killed
_LONGEST_PAUSE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Watch:
    """When silence means what. Seconds.

    Attributes:
        beat: between looks; an idle engine computes one token a beat.
        hang: no step for so long although there is work: not ready, callers are told. Longer than any single step.
        replace: no step for so long: killed and replaced.
    """

    beat: float = 1.0
    hang: float = 10.0
    replace: float = 60.0


class EngineProcess:
    """One AsyncLLM after another. All methods belong to one event loop.

    Attributes:
        meter: counters of vLLM itself.
        queued: tokens that callers wait for, of the checkpoint's judge and of every adapter's.
    """

    def __init__(self, arguments: AsyncEngineArgs, prepare: Prepare, watch: Watch) -> None:
        self.meter = Meter()
        self.queued = 0
        self._arguments = arguments
        self._prepare = prepare
        self._watch = watch
        self._llm: AsyncLLM | None = None
        self._family: list[psutil.Process] = []
        self._leash: Leash | None = None
        self._detail = "not started"
        self._ready = False
        self._lost: asyncio.Future[str] | None = None
        self._started: asyncio.Future[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._probes = itertools.count()

    @property
    def ready(self) -> bool:
        """Whether the engine takes work."""
        return self._ready

    @property
    def detail(self) -> str:
        """One sentence on its state."""
        return self._detail

    def current(self) -> tuple[AsyncLLM, asyncio.Future[str]]:
        """The live engine, and a future that is done, with the reason, when it stops being that.

        Raises:
            EngineUnavailableError: there is none now; the message says why.
        """
        if not self._ready or self._llm is None or self._lost is None:
            raise EngineUnavailableError(f"vLLM: {self._detail}")
        return self._llm, self._lost

    async def start(self) -> None:
        """Return when the first engine is ready. May be called again: it then waits for the current one.

        Raises:
            CheckpointError: vLLM cannot load the checkpoint or its settings.
            EngineUnavailableError: closed.
        """
        if self._keeper is None:
            self._started = asyncio.get_running_loop().create_future()
            self._keeper = asyncio.create_task(self._keep(), name="vllm-keeper")
        if self._started is None or self._keeper.done():
            raise EngineUnavailableError(f"vLLM: {self._detail}")
        await asyncio.shield(self._started)

    async def close(self) -> None:
        """End the engine and its processes. Idempotent."""
        keeper = self._keeper
        if keeper is not None and not keeper.done():
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        self._take_away("closed")
        if self._started is not None and not self._started.done():
            self._started.set_exception(EngineUnavailableError("vLLM: closed while starting"))
            self._started.exception()  # nobody may be waiting for it
        await self._end(gently=True)

    async def _keep(self) -> None:
        pause = 1.0
        while True:
            try:
                llm = await self._begin()
            except Exception as error:
                if self._started is not None and not self._started.done():
                    self._detail = f"does not start: {error}"
                    self._started.set_exception(CheckpointError(f"vLLM {self._detail}"))
                    await self._end(gently=False)
                    return
                log.exception("vLLM does not start again; next try in %.0f s", pause)
                self._take_away(f"does not start again: {error}")
                await self._end(gently=False)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                continue
            pause = 1.0
            reason = await self._until_lost(llm)
            log.error("vLLM is replaced: %s", reason)
            self._take_away(f"{reason}; starting again")
            await self._end(gently=False)

    async def _begin(self) -> AsyncLLM:
        self._detail = "starting" if self._lost is None else self._detail
        starting = asyncio.create_task(asyncio.to_thread(self._construct))
        try:
            llm = await asyncio.shield(starting)
        except asyncio.CancelledError:  # a thread cannot be cancelled: let it finish, close() ends what it made
            await asyncio.wait({starting})
            raise
        await self._prepare(llm)
        self._give_back()
        if self._started is not None and not self._started.done():
            self._started.set_result(None)
        return llm

    def _construct(self) -> AsyncLLM:
        """Blocks for seconds to minutes: loads, compiles, sizes the cache."""
        self._llm = AsyncLLM.from_engine_args(self._arguments, stat_loggers=[self.meter.logger])
        cores = [psutil.Process(p.pid) for p in self._llm.engine_core.resources.engine_manager.processes]
        self._family = [*cores, *(worker for core in cores for worker in core.children(recursive=True))]
        self._leash = Leash([process.pid for process in self._family])
        return self._llm

    async def _until_lost(self, llm: AsyncLLM) -> str:
        """Watch the live engine; return why it must be replaced."""
        probe: asyncio.Task[None] | None = None
        silent, steps = 0.0, self.meter.steps
        try:
            while True:
                looked = time.monotonic()
                await asyncio.sleep(self._watch.beat)
                if llm.errored:
                    return "its process died"
                now = time.monotonic()
                if probe is None or probe.done():
                    self._give_back()
                    silent, steps = 0.0, self.meter.steps
                    if now - self.meter.stepped_at >= self._watch.beat:
                        probe = asyncio.create_task(self._probe(llm))
                    continue
                # Steps are learnt of on this loop: time in which it stood still itself proves nothing.
                silent += min(now - looked, 2 * self._watch.beat)
                if self.meter.steps != steps:
                    silent, steps = 0.0, self.meter.steps
                if silent >= self._watch.replace:
                    return f"no step for {silent:.0f} s"
                if silent >= self._watch.hang:
                    self._take_away(f"hung: no step for {silent:.1f} s although there is work")
        finally:
            if probe is not None:
                probe.cancel()
                await asyncio.wait({probe})

    async def _probe(self, llm: AsyncLLM) -> None:
        prompt = tokens_input([0])
        try:
            async for _ in llm.generate(prompt, _PROBE, f"probe-{next(self._probes)}", priority=_FIRST):
                pass
        except Exception as error:  # noqa: BLE001 - whatever it is, `errored` or silence will tell
            log.debug("probe failed: %s", error)

    def _give_back(self) -> None:
        if not self._ready:
            self._ready, self._detail = True, "makes progress"
            self._lost = asyncio.get_running_loop().create_future()
            self.meter.stepped_at = time.monotonic()

    def _take_away(self, reason: str) -> None:
        self._ready, self._detail = False, reason
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(reason)

    async def _end(self, *, gently: bool) -> None:
        llm, self._llm = self._llm, None
        family, self._family = self._family, []
        if self._leash is not None:
            self._leash.release()
            self._leash = None
        if not gently:  # a stopped process ignores everything else
            _kill(family)
        if llm is not None:
            if llm.output_handler is not None:
                llm.output_handler.cancel()  # else it reports the end it is about to see as a failure
            await asyncio.to_thread(llm.shutdown, _END_SECONDS)
        _kill(family)


def _kill(family: list[psutil.Process]) -> None:
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()  # psutil compares creation times: never a stranger that got the same id
