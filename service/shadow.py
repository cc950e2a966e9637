"""Shadow mode: a second checkpoint or index judges a share of the live requests too, and nobody waits for it.

Samples wait in a short queue and are judged one at a time, while the live engine has nothing to do; when there is no
such time they are dropped and counted. What comes of it are metrics alone: no answer, no cache, no quota knows of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from models.deadline import Deadline
from models.engines.port import ItemStatus
from models.errors import ModelError
from service.canary import unfit
from service.errors import ServiceError
from service.pipeline import Pipeline
from service.request import Call, Priority

if TYPE_CHECKING:
    from service.admission.admission import Admission
    from service.fetch import Fetched, Fetcher
    from service.metrics.shadow import ShadowMetrics
    from service.pipeline import Judge, Judged
    from service.reply import ItemResult
    from service.request import Caller, ScoreRequest

log = logging.getLogger(__name__)

QUEUE: Final = 16  # samples that wait
PAUSE_SECONDS: Final = 0.005  # between looks for an idle engine
PATIENCE_SECONDS: Final = 5.0  # that a sample waits for one
BUDGET_MS: Final = 30_000.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried.

    Attributes:
        judge: the second checkpoint; None for the live one.
        fetcher: of the second knowledge; None for the live one's.
        share: of the requests.
    """

    judge: Judge | None
    fetcher: Fetcher | None
    share: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A live request and what was answered."""

    request: ScoreRequest
    caller: Caller
    results: tuple[ItemResult, ...]
    judge: Judge


class Shadow:
    """Observes the live pipeline (`service.pipeline.Observer`); `run` judges as long as the process.

    Args:
        trial: what is tried.
        live: fetcher of the live pipeline.
        admission: knows whether the live engine has work.
        metrics: gets what comes of it.
    """

    def __init__(self, trial: Trial, live: Fetcher, admission: Admission, metrics: ShadowMetrics) -> None:
        self._share = trial.share
        self._judge = trial.judge
        self._fetcher = trial.fetcher
        self._live = live
        self._admission = admission
        self._metrics = metrics
        self._samples: asyncio.Queue[Sample] = asyncio.Queue(QUEUE)
        self._usable = trial.judge is None  # the live one's canaries are watched already

    def judged(self, request: ScoreRequest, call: Call, fetched: Fetched, judged: Judged, judge: Judge) -> None:
        """Sample a request that was judged in full."""
        del fetched
        if not self._usable or random.random() >= self._share or judged.degraded:
            return
        if self._judge is not None and judge.manifest.base is not None:
            return  # an adapter answered, and the candidate is of the checkpoint
        if self._fetcher is not None and self._live.of(call.caller.tenant) is not self._live:
            return  # it has knowledge of its own, which the candidate does not replace
        try:
            self._samples.put_nowait(Sample(request, call.caller, judged.results, judge))
        except asyncio.QueueFull:
            self._metrics.requests.labels("dropped").inc()

    async def run(self) -> None:
        """Judge samples until cancelled. A candidate that fails its canaries is left alone, and the log says so."""
        if self._judge is not None and (problem := await unfit(self._judge)):
            log.error("shadow: the candidate is not used: %s", problem)
            return
        self._usable = True
        while True:
            sample = await self._samples.get()
            if not await self._idle():
                self._metrics.requests.labels("dropped").inc()
                continue
            try:
                await self._compare(sample)
            except (ServiceError, ModelError) as error:
                self._metrics.requests.labels("failed").inc()
                log.warning("shadow: %s", error)
            except Exception:  # a defect of a trial must not end the service
                self._metrics.requests.labels("failed").inc()
                log.exception("shadow: a defect")

    async def close(self) -> None:
        """Release what is its own."""
        if self._fetcher is not None:
            self._fetcher.close()
        if self._judge is not None:
            await self._judge.engine.close()

    async def _idle(self) -> bool:
        end = time.monotonic() + PATIENCE_SECONDS
        while self._admission.queued_requests:
            if time.monotonic() >= end:
                return False
            await asyncio.sleep(PAUSE_SECONDS)
        return True

    async def _compare(self, sample: Sample) -> None:
        judge = self._judge or sample.judge
        pipeline = Pipeline(judge, self._fetcher or self._live)
        call = Call(
            id="shadow",
            deadline=Deadline.after(BUDGET_MS),
            started=time.monotonic(),
            caller=replace(sample.caller, priority=Priority.BATCH, quotas=()),
        )
        reply = await pipeline.score(replace(sample.request, top_n=None), call)
        found = {result.index: result for result in reply.results}
        pairs = [(live, found[live.index]) for live in sample.results if _both(live, found[live.index])]
        self._metrics.compared(reply.versions, reply.timings_ms, pairs)


def _both(live: ItemResult, found: ItemResult) -> bool:
    return live.status is ItemStatus.OK and found.status is ItemStatus.OK
