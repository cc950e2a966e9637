"""The embedded engine: implements `port.Engine` for one event loop or several, over threads that compute."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from models.deadline import Deadline
from models.engines.onnx.build import Recipe
from models.engines.onnx.cores import cores
from models.engines.onnx.runner import Runner
from models.engines.onnx.schedule import Request, Step
from models.engines.onnx.workers import Limits, Workers
from models.engines.port import EngineHealth, ItemStatus, Scores
from models.errors import EngineUnavailableError, PromptTooLongError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.engines.onnx.architecture import Architecture, Precision
    from models.manifest import Manifest

_WATCH_SECONDS = 0.25  # how often a waiting call looks whether the engine is still alive


class OnnxEngine:
    """ONNX Runtime on the CPU. Make one with `load`."""

    def __init__(
        self, runner: Runner, architecture: Architecture, manifest: Manifest, *, name: str, limits: Limits, threads: int
    ) -> None:
        self._runner = runner
        self._architecture = architecture
        self._manifest = manifest
        self._name = name
        self._workers = Workers(runner, limits, threads)

    @classmethod
    def load(
        cls,
        folder: Path,
        manifest: Manifest,
        *,
        precision: Precision = "int8",
        threads: int | None = None,
        cache_dir: Path | None = None,
        limits: Limits | None = None,
    ) -> Self:
        """Open a checkpoint; builds its graphs when the cache does not hold them. Blocks: run it in a thread.

        Args:
            folder: the checkpoint, in Hugging Face format.
            manifest: its manifest, already checked against the files.
            precision: int8, or float32 at less than half the speed.
            threads: forward passes that run side by side; all cores this process may use when None.
            cache_dir: where built graphs are kept; `TIERWISE_CACHE_DIR` or the user's cache folder when None.
            limits: what the engine may take on.

        Raises:
            CheckpointError: the checkpoint is not one that this engine computes; the message names why.
        """
        recipe = Recipe.of(folder, manifest, precision)
        runner = Runner.open(recipe, cache_dir)
        return cls(
            runner,
            runner.architecture,
            manifest,
            name=f"onnx-{precision}",
            limits=limits or Limits(),
            threads=threads or cores(),
        )

    @property
    def name(self) -> str:
        """`onnx-int8` or `onnx-float32`."""
        return self._name

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """See `port.Engine.score`."""
        labels = len(self._manifest.tiers)
        self._check(prefix, suffixes)
        logits = np.full((len(suffixes), labels), np.nan, np.float32)
        if not suffixes:
            return Scores(logits, ())
        future, resolve = _future()
        submitted = time.monotonic()
        request = Request(tuple(prefix), suffixes, deadline, scope, logits, done=lambda: resolve(None))
        self._workers.submit(request)
        try:
            await self._wait(future, deadline, lambda: ItemStatus.OK in request.status)
        finally:
            self._workers.cancel(request)
        status = tuple(s or ItemStatus.EXPIRED for s in request.status)  # none yet: in a pass that goes on without us
        logits = np.where([[s is ItemStatus.OK] for s in status], logits, np.float32(np.nan))
        if self._workers.closed and ItemStatus.FAILED in status:
            raise EngineUnavailableError("the engine was closed")
        queued = None if request.began is None else (request.began - submitted) * 1000.0
        return Scores(_log_softmax(logits), status, cached_tokens=request.cached_tokens, queued_ms=queued)

    async def explain(
        self,
        prefix: Sequence[int],
        suffix: Sequence[int],
        deadline: Deadline,
        *,
        label: int,
        max_tokens: int,
        scope: str = "",
    ) -> AsyncIterator[int]:
        """See `port.Engine.explain`. The end token itself is not yielded. Keeps nothing between calls."""
        del scope
        self._check(prefix, [suffix])
        ids = (*prefix, *suffix, label)
        room = min(max_tokens, self._manifest.rationale.max_tokens, self._architecture.positions - len(ids))
        decoding = self._runner.decode(ids, room)
        for _ in range(room):
            future, resolve = _future()
            step = Step(decoding, deadline, done=resolve)
            self._workers.submit(step)
            try:
                token = await self._wait(future, deadline)
            finally:
                self._workers.cancel(step)
            if token is None or token == self._manifest.rationale.end_token_id:
                return
            yield token

    async def warm_up(self) -> None:
        """Run both graphs once."""
        token = self._manifest.label_token_ids[0]
        await self.score([token], [[token]], Deadline.never())

    def health(self) -> EngineHealth:
        """See `port.Engine.health`."""
        return self._workers.health()

    async def close(self) -> None:
        """See `port.Engine.close`."""
        await asyncio.to_thread(self._workers.close)

    def _check(self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> None:
        longest = len(prefix) + max(map(len, suffixes), default=0)
        if longest > self._manifest.max_tokens:
            raise PromptTooLongError(f"prompt of {longest} tokens, the engine takes {self._manifest.max_tokens}")
        for ids in (prefix, *suffixes):
            if ids and not 0 <= min(ids) <= max(ids) < self._architecture.vocabulary:
                raise ValueError(
                    f"token ids run from 0 to {self._architecture.vocabulary - 1}, not {min(ids)}..{max(ids)}"
                )
        if not all(suffixes):
            raise ValueError("a suffix is empty: its last token is where the label is read")

    async def _wait(
        self, future: asyncio.Future[Any], deadline: Deadline, enough: Callable[[], bool] = lambda: False
    ) -> Any:
        """Wait for a result; at the deadline, have the engine answer for what has not begun.

        What is in a pass by then is waited for only while there is not enough to answer with: a partial answer in time
        is better than all of it too late.
        """
        while not future.done():
            await asyncio.wait({future}, timeout=min(_WATCH_SECONDS, deadline.remaining() or _WATCH_SECONDS))
            if deadline.expired:
                self._workers.expire()
                if enough():
                    return None
            if not future.done() and not (health := self.health()).alive:
                raise EngineUnavailableError(health.detail)
        return future.result()


def _future() -> tuple[asyncio.Future[Any], Callable[[object], None]]:
    """A future of the running loop, and what sets it from any thread; the caller, or its whole loop, may be gone."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def set_result(value: object) -> None:
        if not future.done():
            future.set_result(value)

    def resolve(value: object) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(set_result, value)

    return future, resolve


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
