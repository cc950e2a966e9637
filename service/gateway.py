"""What lives as long as the process: settings, pipeline, health and metrics, put together in one place."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from models.adapter import load_adapter
from models.errors import CheckpointError
from models.manifest import load_manifest
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer
from service.access.authenticate import open_access
from service.access.tls import open_tls
from service.admission.admission import Admission
from service.cache.cache import ResultCache
from service.engines import EMBEDDED, open_adapter, open_engine
from service.fetch import Fetcher
from service.health import Health
from service.judges import Judges
from service.knowledge import open_knowledge, open_tenants
from service.metrics import Metrics
from service.pipeline import Judge, Pipeline
from service.selftest import SelfTest
from service.settings import EngineName, SettingsError
from service.shadow import Shadow, Trial
from service.tracing import open_tracing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from service.access.authenticate import Access
    from service.access.tls import Tls
    from service.knowledge import Live
    from service.settings import Settings
    from service.tracing import Tracing


@dataclass(slots=True)
class Gateway:
    """One process. Doors read it; nothing in it changes but through its own methods.

    Attributes:
        judges: for new requests; those under way keep the pipeline that they began with.
        judge_loaded_at: seconds since the epoch.
        retired: pipelines of earlier judges that are not closed yet.
        reloading: held by who looks for something new.
        refused: why the newest checkpoint was not taken over; empty when it was.
    """

    settings: Settings
    judges: Judges
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
    refused: str = ""

    @property
    def pipeline(self) -> Pipeline:
        """Of the checkpoint's judge."""
        return self.judges.base

    def serving(self, model: str | None) -> Pipeline:
        """Of the judge that a request names, fit to answer it.

        Raises:
            NotFoundError: there is no such judge.
            NotReadyError: its canaries do not come out right, or the checkpoint's do not.
        """
        pipeline = self.judges.named(model)
        self.health.check_tested(pipeline.judge.manifest.name)
        return pipeline

    def refuse(self, detail: str) -> None:
        """The newest checkpoint is not fit to be taken over; what serves goes on. Nothing to say: it is in use."""
        self.refused = detail

    def take_over(self, judge: Judge) -> Pipeline:
        """From now on this judge serves. Returns the pipeline before, which the caller has to `retire`.

        The result cache goes on where the keys stay the same: it keeps log-probabilities, from before beta and
        temperature.
        """
        before, cache = self.pipeline, self.pipeline.cache
        if cache is None or not cache.serves(judge.manifest, judge.engine.name):
            cache = _cache(self.settings, judge)
        self.judges = replace(self.judges, base=before.with_judge(judge, cache))
        self.judge_loaded_at = time.time()
        self.retired.append(before)
        self.health.take_over(judge, self.pipeline.cache.trust if self.pipeline.cache else None)
        return before

    async def retire(self, pipeline: Pipeline) -> None:
        """Close what of a pipeline no other one uses. No request can be in it any more."""
        if pipeline not in self.retired:
            return
        self.retired.remove(pipeline)
        others = (*self.judges, *self.retired)
        if pipeline.cache is not None and all(other.cache is not pipeline.cache for other in others):
            await pipeline.cache.close()
        if all(other.judge.engine is not pipeline.judge.engine for other in others):
            await pipeline.judge.engine.close()

    started_at: int = field(default_factory=lambda: int(time.time()))

    async def close(self) -> None:
        """Finish what runs, release everything."""
        self.pipeline.fetcher.close()
        while self.retired:
            await self.retire(self.retired[0])
        for pipeline in reversed(tuple(self.judges)):  # the checkpoint's holds what the others share
            await pipeline.close()
        if self.shadow is not None:
            await self.shadow.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)


def open_judge(settings: Settings) -> Judge:
    """Load the configured checkpoint behind the configured engine.

    Raises:
        CheckpointError: the folder is not a checkpoint, was changed, or does not fit the engine.
        SettingsError: the engine is not installed, or cannot serve adapters.
    """
    # Waking the tokenizer's own threads takes longer than a request's text does: docs/http.md. The operator may differ.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    manifest = load_manifest(settings.checkpoint)
    if manifest.base is not None:
        raise CheckpointError(f"{settings.checkpoint} holds an adapter over {manifest.base}: name it in vllm.adapters")
    tokenizer = FieldTokenizer(settings.checkpoint)
    return Judge(manifest, tokenizer, PromptWriter(manifest, tokenizer), open_engine(settings, manifest))


def open_judges(settings: Settings) -> list[Judge]:
    """The checkpoint's judge, then one for each configured adapter over it, all behind one engine.

    Raises:
        CheckpointError: as of `open_judge`, or a folder does not hold the adapter that it is said to.
        SettingsError: as of `open_judge`.
    """
    base = open_judge(settings)
    judges = [base]
    for name, folder in settings.vllm.adapters.items():
        if name == base.manifest.name:
            raise SettingsError(f"vllm.adapters: {name!r} is the checkpoint's own name")
        manifest = load_adapter(folder, base.manifest, name=name)
        engine = open_adapter(base.engine, name, manifest)
        judges.append(Judge(manifest, base.tokenizer, PromptWriter(manifest, base.tokenizer), engine))
    return judges


def open_gateway(settings: Settings) -> Gateway:
    """Everything from settings. The engine is warm and checked only once `Gateway.health.watch` has run.

    Raises:
        CheckpointError, SettingsError: naming what is wrong.
    """
    access, tls = open_access(settings), open_tls(settings.tls)
    shared, tenants = open_knowledge(settings), open_tenants(settings)
    budget = settings.retrieval_budget_ms
    base, *adapters = open_judges(settings)
    return assemble(
        settings,
        base,
        Fetcher(shared, budget, {tenant: Fetcher(own, budget) for tenant, own in tenants.items()}),
        adapters=adapters,
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
        judge = open_judge(_of_trial(settings, chosen.checkpoint))
    fetcher = None
    if chosen.knowledge is not None:
        knowledge = open_knowledge(settings.model_copy(update={"knowledge": chosen.knowledge}))
        fetcher = Fetcher(knowledge, settings.retrieval_budget_ms)
    return Trial(judge, fetcher, chosen.share)


def _of_trial(settings: Settings, checkpoint: Path) -> Settings:
    """Settings of the candidate's engine."""
    chosen, vllm = settings.shadow, settings.vllm
    elsewhere = settings.engine is EngineName.VLLM_SERVER
    if settings.engine is EngineName.VLLM:
        raise SettingsError(
            "shadow.checkpoint: the engine vllm has memory for one checkpoint in a process: serve the candidate with "
            "vllm servers of its own (engine vllm-server, shadow.urls), or roll it out as a second release"
        )
    if elsewhere and not chosen.urls and chosen.model is None:
        raise SettingsError(
            "shadow.checkpoint: the servers at vllm.urls run the live checkpoint: name the candidate's own "
            "(shadow.urls), or its name on these (shadow.model)"
        )
    if not elsewhere and (chosen.urls or chosen.model is not None):
        raise SettingsError("shadow.urls and shadow.model are for the engine vllm-server")
    servers = vllm.model_copy(update={"urls": chosen.urls or vllm.urls, "model": chosen.model})
    return settings.model_copy(update={"checkpoint": checkpoint, "threads": chosen.threads, "vllm": servers})


def _cache(settings: Settings, judge: Judge, beside: ResultCache | None = None) -> ResultCache | None:
    if not settings.cache.enabled:
        return None
    return ResultCache(settings.cache, judge.manifest, judge.engine.name, beside=beside)


def assemble(
    settings: Settings,
    judge: Judge,
    fetcher: Fetcher,
    *,
    embedded: bool,
    adapters: Sequence[Judge] = (),
    access: Access | None = None,
    tls: Tls | None = None,
    trial: Trial | None = None,
    knowledge: Mapping[str, Live] | None = None,
) -> Gateway:
    """A gateway around parts that are open already; `access` and `tls` are opened when they are not given.

    Closing it closes the judges, `adapters` before the one that they lie over.
    """
    metrics = Metrics(settings.deadline_ms / 1000.0)
    admission = Admission(settings.admission, workers=settings.workers)
    cache = _cache(settings, judge)
    shadow = Shadow(trial, fetcher, admission, metrics.shadow) if trial else None
    base = Pipeline(
        judge,
        fetcher,
        cache=cache,
        admission=admission,
        engine_grace_ms=settings.engine_grace_ms,
        observers=[metrics, *([shadow] if shadow else [])],
    )
    others = {one.manifest.name: base.with_judge(one, _cache(settings, one, beside=cache)) for one in adapters}
    tests = [
        SelfTest(one.judge, settings.health, one.cache.trust if one.cache else None, base=judge)
        for one in others.values()
    ]
    return Gateway(
        settings=settings,
        judges=Judges(base, others),
        health=Health(judge, settings.health, embedded=embedded, trust=cache.trust if cache else None, adapters=tests),
        access=access or open_access(settings),
        tls=tls or open_tls(settings.tls),
        admission=admission,
        knowledge=knowledge or {},
        metrics=metrics,
        tracing=open_tracing(settings.tracing),
        shadow=shadow,
    )
