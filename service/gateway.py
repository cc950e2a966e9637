"""What lives as long as the process: settings, pipeline, health and metrics, put together in one place."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.manifest import load_manifest
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer
from service.access.authenticate import open_access
from service.access.tls import open_tls
from service.admission.admission import Admission
from service.cache.cache import ResultCache
from service.engines import EMBEDDED, open_engine
from service.fetch import Fetcher
from service.health import Health
from service.knowledge import open_knowledge, open_tenants
from service.metrics import Metrics
from service.pipeline import Judge, Pipeline
from service.settings import EngineName, SettingsError
from service.shadow import Shadow, Trial
from service.tracing import open_tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.access.authenticate import Access
    from service.access.tls import Tls
    from service.knowledge import Live
    from service.settings import Settings
    from service.tracing import Tracing


@dataclass(slots=True)
class Gateway:
    """One process. Doors read it; nothing in it changes but through its own methods.

    Attributes:
        pipeline: for new requests; those under way keep the one that they began with.
        judge_loaded_at: seconds since the epoch.
        retired: pipelines of earlier judges that are not closed yet.
        reloading: held by who looks for something new.
    """

    settings: Settings
    pipeline: Pipeline
    health: Health
    access: Access
    tls: Tls | None
    admission: Admission
    knowledge: Mapping[str, Live] = field(default_factory=dict)  # by setting; each is followed
    metrics: Metrics = field(default_factory=Metrics)
    tracing: Tracing | None = None
    shadow: Shadow | None = None
    judge_loaded_at: float = field(default_factory=time.time)
    retired: list[Pipeline] = field(default_factory=list)
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take_over(self, judge: Judge) -> Pipeline:
        """From now on this judge serves. Returns the pipeline before, which the caller has to `retire`."""
        before = self.pipeline
        self.pipeline = before.with_judge(judge, _cache(self.settings, judge))
        self.judge_loaded_at = time.time()
        self.retired.append(before)
        self.health.take_over(judge, self.pipeline.cache.trust if self.pipeline.cache else None)
        return before

    async def retire(self, pipeline: Pipeline) -> None:
        """Close a pipeline that no request can be in any more."""
        if pipeline in self.retired:
            self.retired.remove(pipeline)
            await pipeline.close()

    started_at: int = field(default_factory=lambda: int(time.time()))

    async def close(self) -> None:
        """Finish what runs, release everything."""
        self.pipeline.fetcher.close()
        for pipeline in (self.pipeline, *self.retired):
            await pipeline.close()
        if self.shadow is not None:
            await self.shadow.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)


def open_judge(settings: Settings) -> Judge:
    """Load the configured checkpoint behind the configured engine.

    Raises:
        CheckpointError: the folder is not a checkpoint, was changed, or does not fit the engine.
        SettingsError: the engine is not installed.
    """
    # Waking the tokenizer's own threads takes longer than a request's text does: docs/http.md. The operator may differ.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    manifest = load_manifest(settings.checkpoint)
    tokenizer = FieldTokenizer(settings.checkpoint)
    return Judge(manifest, tokenizer, PromptWriter(manifest, tokenizer), open_engine(settings, manifest))


def open_gateway(settings: Settings) -> Gateway:
    """Everything from settings. The engine is warm and checked only once `Gateway.health.watch` has run.

    Raises:
        CheckpointError, SettingsError: naming what is wrong.
    """
    access, tls = open_access(settings), open_tls(settings.tls)
    shared, tenants = open_knowledge(settings), open_tenants(settings)
    budget = settings.retrieval_budget_ms
    judge = open_judge(settings)
    return assemble(
        settings,
        judge,
        Fetcher(shared, budget, {tenant: Fetcher(own, budget) for tenant, own in tenants.items()}),
        embedded=settings.engine in EMBEDDED,
        access=access,
        tls=tls,
        trial=open_trial(settings),
        knowledge=({"knowledge": shared} if shared else {})
        | {f"tenants.{tenant}.knowledge": own for tenant, own in tenants.items()},
    )


def open_trial(settings: Settings) -> Trial | None:
    """The configured candidate of shadow mode, None without one.

    Raises:
        CheckpointError, SettingsError: naming what is wrong.
    """
    chosen = settings.shadow
    if chosen.checkpoint is None and chosen.knowledge is None:
        return None
    judge = None
    if chosen.checkpoint is not None:
        if settings.engine not in (EngineName.ONNX_INT8, EngineName.ONNX_FLOAT32):
            raise SettingsError(f"shadow.checkpoint: the engine {settings.engine} takes no second checkpoint")
        judge = open_judge(settings.model_copy(update={"checkpoint": chosen.checkpoint, "threads": chosen.threads}))
    fetcher = None
    if chosen.knowledge is not None:
        knowledge = open_knowledge(settings.model_copy(update={"knowledge": chosen.knowledge}))
        fetcher = Fetcher(knowledge, settings.retrieval_budget_ms)
    return Trial(judge, fetcher, chosen.share)


def _cache(settings: Settings, judge: Judge) -> ResultCache | None:
    return ResultCache(settings.cache, judge.manifest, judge.engine.name) if settings.cache.enabled else None


def assemble(
    settings: Settings,
    judge: Judge,
    fetcher: Fetcher,
    *,
    embedded: bool,
    access: Access | None = None,
    tls: Tls | None = None,
    trial: Trial | None = None,
    knowledge: Mapping[str, Live] | None = None,
) -> Gateway:
    """A gateway around parts that are open already; `access` and `tls` are opened when they are not given."""
    metrics = Metrics(settings.deadline_ms / 1000.0)
    admission = Admission(settings.admission, workers=settings.workers)
    cache = _cache(settings, judge)
    shadow = Shadow(trial, fetcher, admission, metrics.shadow) if trial else None
    return Gateway(
        settings=settings,
        pipeline=Pipeline(
            judge,
            fetcher,
            cache=cache,
            admission=admission,
            engine_grace_ms=settings.engine_grace_ms,
            observers=[metrics, *([shadow] if shadow else [])],
        ),
        health=Health(judge, settings.health, embedded=embedded, trust=cache.trust if cache else None),
        access=access or open_access(settings),
        tls=tls or open_tls(settings.tls),
        admission=admission,
        knowledge=knowledge or {},
        metrics=metrics,
        tracing=open_tracing(settings.tracing),
        shadow=shadow,
    )
