"""The threads that take passes off the schedule and run them. Everything shared is behind one lock."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.engines.onnx.batch import KeysValues, Row
from models.engines.onnx.schedule import Pass, Prefixes, PrefixKey, Request, Schedule, Step, Work
from models.engines.port import EngineHealth, ItemStatus
from models.errors import EngineBusyError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.engines.onnx.runner import Runner

_log = logging.getLogger(__name__)

_FAILURES: Final = 3  # passes in a row that raise before the engine calls itself dead


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine may take on.

    Attributes:
        pass_tokens: tokens of one forward pass: how long an urgent request may wait for one that runs.
        queue_tokens: tokens queued before requests are refused.
        prefix_bytes: memory for keys and values of recent prefixes.
        hung_seconds: a pass that takes this long is taken for one that will not come back.
    """

    pass_tokens: int = 512
    queue_tokens: int = 1 << 18
    prefix_bytes: int = 32 << 20
    hung_seconds: float = 30.0


class Workers:
    """Owns the threads, from construction to `close`."""

    def __init__(self, runner: Runner, limits: Limits, threads: int) -> None:
        self._runner = runner
        self._limits = limits
        self._schedule = Schedule(limits.pass_tokens)
        self._recent: OrderedDict[PrefixKey, KeysValues] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._steps = 0
        self._batches: Counter[int] = Counter()
        self._failures = 0
        self._last_failure = ""
        self._began: list[float | None] = [None] * threads
        self._threads = [
            threading.Thread(target=self._work, args=(slot,), name=f"onnx-{slot}", daemon=True)
            for slot in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> None:
        """Queue work.

        Raises:
            EngineUnavailableError: closed.
            EngineBusyError: too many tokens wait already.
        """
        with self._changed:
            if self._closed:
                raise EngineUnavailableError("the engine is closed")
            queued = self._schedule.tokens
            if queued and queued + work.tokens > self._limits.queue_tokens:
                raise EngineBusyError(f"{queued} tokens are queued already, the limit is {self._limits.queue_tokens}")
            if isinstance(work, Request):
                self._find_prefix(work)
            self._schedule.add(work)
            self._changed.notify_all()

    def _find_prefix(self, request: Request) -> None:
        if not request.prefix:
            request.keys_values = self._runner.empty
        elif request.key in self._recent:
            self._recent.move_to_end(request.key)
            request.keys_values = self._recent[request.key]
            request.cached_tokens = len(request.prefix)

    def cancel(self, work: Work) -> None:
        """Drop what has not begun; nobody waits for the rest."""
        with self._changed:
            self._schedule.remove(work)
            if isinstance(work, Request):
                work.drop(ItemStatus.EXPIRED)

    def expire(self) -> None:
        """Answer what is past its deadline now, even while all threads are busy."""
        with self._changed:
            self._end(self._schedule.expired(), ItemStatus.EXPIRED)

    def health(self) -> EngineHealth:
        """See `port.Engine.health`. Takes the lock, which nobody holds while computing."""
        with self._changed:
            now = time.monotonic()
            oldest = max((now - began for began in self._began if began is not None), default=0.0)
            problem = ""
            if self._closed:
                problem = "the engine is closed"
            elif oldest > self._limits.hung_seconds:
                problem = f"a forward pass has not come back for {oldest:.0f} s"
            elif self._failures >= _FAILURES:
                problem = f"the last {self._failures} forward passes failed: {self._last_failure}"
            elif not all(thread.is_alive() for thread in self._threads):
                problem = "a worker thread has died"
            return EngineHealth(
                alive=not problem,
                detail=problem or ("computing" if oldest else "idle"),
                queued_tokens=self._schedule.tokens,
                steps=self._steps,
                batches=dict(self._batches),
            )

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._closed

    def close(self) -> None:
        """Refuse new work, fail what waits, let passes that run come back. Blocks until they have. Idempotent."""
        with self._changed:
            self._closed = True
            self._end(self._schedule.clear(), ItemStatus.FAILED)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(self._limits.hung_seconds)

    def _work(self, slot: int) -> None:
        while (taken := self._next(slot)) is not None:
            result: Any = None
            failure: Exception | None = None
            try:
                result = self._compute(taken)
            except Exception as error:  # noqa: BLE001 - whatever ONNX Runtime raises, its callers must hear of it
                _log.error("a forward pass failed: %s", error)
                failure = error
            with self._changed:
                self._began[slot] = None
                self._steps += 1
                if failure is None:
                    self._failures = 0
                    self._deliver(taken, result)
                else:
                    self._failures += 1
                    self._last_failure = str(failure)
                    self._fail(taken)
                self._changed.notify_all()

    def _next(self, slot: int) -> Pass | None:
        """Wait for a pass; None once closed."""
        with self._changed:
            while not self._closed:
                self._end(self._schedule.expired(), ItemStatus.EXPIRED)
                if (taken := self._schedule.take(self._began.count(None))) is not None:
                    self._began[slot] = now = time.monotonic()
                    self._note(taken, now)
                    return taken
                self._changed.wait()
            return None

    def _note(self, taken: Pass, now: float) -> None:
        """A pass begins: the queue is behind those that it is the first one of."""
        if isinstance(taken, Step):
            return
        if isinstance(taken, Prefixes):
            begun = self._schedule.waiting_for(taken.keys)
        else:
            self._batches[len(taken.items)] += 1
            begun = [request for request, _ in taken.items]
        for request in begun:
            if request.began is None:
                request.began = now

    def _compute(self, taken: Pass) -> Any:
        """The only part that takes time; holds no lock."""
        if isinstance(taken, Step):
            return self._runner.step(taken.decoding)
        if isinstance(taken, Prefixes):
            return self._runner.prefixes([prefix for _, prefix in taken.keys])
        return self._runner.score([Row(r.suffixes[i], r.keys_values) for r, i in taken.items if r.keys_values])

    def _deliver(self, taken: Pass, result: Any) -> None:
        if isinstance(taken, Step):
            taken.done(result)
        elif isinstance(taken, Prefixes):
            for key, keys_values in zip(taken.keys, result, strict=True):
                self._keep(key, keys_values)
                for request in self._schedule.computed(key, keys_values)[1:]:  # computed for the first of them
                    request.cached_tokens = len(request.prefix)
        else:
            for (request, index), row in zip(taken.items, result, strict=True):
                finite = bool(np.isfinite(row).all())
                if finite:
                    request.logits[index] = row
                self._came_back(request, index, ItemStatus.OK if finite else ItemStatus.FAILED)

    def _fail(self, taken: Pass) -> None:
        if isinstance(taken, Step):
            taken.done(None)
        elif isinstance(taken, Prefixes):
            for key in taken.keys:
                self._end(self._schedule.computed(key, None), ItemStatus.FAILED)
        else:
            for request, index in taken.items:
                self._came_back(request, index, ItemStatus.FAILED)

    @staticmethod
    def _came_back(request: Request, index: int, status: ItemStatus) -> None:
        request.status[index] = status
        request.running -= 1
        if request.finished:
            request.done()

    @staticmethod
    def _end(ended: Iterable[Work], status: ItemStatus) -> None:
        for work in ended:
            if isinstance(work, Step):
                work.done(None)
                continue
            work.drop(status)
            if work.finished:
                work.done()

    def _keep(self, key: PrefixKey, keys_values: KeysValues) -> None:
        self._recent[key] = keys_values
        held = sum(kept.nbytes for kept in self._recent.values())
        while held > self._limits.prefix_bytes and self._recent:
            held -= self._recent.popitem(last=False)[1].nbytes
