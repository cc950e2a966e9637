"""The pipeline: one request through recall, fetch, write, score and judge. Both doors and the command line end here."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from models import rationale
from models.deadline import Deadline
from models.engines.port import ItemStatus
from service.admission.admission import Admission
from service.admission.ladder import Step
from service.admission.settings import AdmissionSettings
from service.compute import DECODE_TOKENS, Compute, as_service_errors, stage
from service.errors import DeadlineError, NotReadyError, OverloadedError
from service.judge import best_first, verdicts
from service.parts import Parts
from service.reply import (
    AttributeJudgement,
    Degraded,
    ExplainReply,
    ItemResult,
    RationaleFields,
    ScoreReply,
    Usage,
    Versions,
)
from service.request import Call, Priority
from service.rows import EXPIRED, FAILED, LEFT_OUT, OK, prompt_tokens, unscored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.engines.port import Engine
    from models.manifest import Manifest
    from models.prompt import PromptWriter
    from models.tokenizer import FieldTokenizer
    from service.cache.cache import Recalled, ResultCache
    from service.errors import ServiceError
    from service.fetch import Fetched, Fetcher
    from service.parts import Tell
    from service.request import Caller, ScoreRequest
    from service.rows import Rows

REFRESH_MS = 5_000.0  # for computing a hit again; nobody waits for it


@dataclass(frozen=True, slots=True)
class Judge:
    """One loaded checkpoint behind an engine. Lives as long as the process, or until the next reload."""

    manifest: Manifest
    tokenizer: FieldTokenizer
    writer: PromptWriter
    engine: Engine

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names of its tiers, best first."""
        return tuple(tier.name for tier in self.manifest.tiers)

    def versions(self, index: str | None) -> Versions:
        """Versions of everything that moves an answer."""
        m = self.manifest
        return Versions(checkpoint=m.checkpoint_id, prompt=m.prompt_hash, index=index, tiers=m.tiers_id)


@dataclass(frozen=True, slots=True)
class Answered:
    """Rows of every item of a request, wherever they are from, and the chunk decision that they share."""

    fetched: Fetched
    rows: Rows
    cached_tokens: int
    cached_items: int = 0


@dataclass(frozen=True, slots=True)
class Judged:
    """A request on its way out of the pipeline: results in the order of the request."""

    results: tuple[ItemResult, ...]
    degraded: tuple[Degraded, ...]
    usage: Usage


class Observer(Protocol):
    """Is told of every judged request before its answer leaves: must be quick, and must not raise."""

    def judged(self, request: ScoreRequest, call: Call, fetched: Fetched, judged: Judged, judge: Judge) -> None:
        """Take note. `judged` has a result for each item of the request; `call.timings_ms` has a total."""
        ...


class Pipeline:
    """Scores and explains requests."""

    def __init__(
        self,
        judge: Judge,
        fetcher: Fetcher,
        *,
        cache: ResultCache | None = None,
        admission: Admission | None = None,
        engine_grace_ms: float = 50.0,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.judge = judge
        self.fetcher = fetcher
        self.cache = cache
        self.admission = admission or Admission(AdmissionSettings(enabled=False))
        self._grace = engine_grace_ms / 1000.0
        self._compute = Compute(judge, self.admission, self._grace)
        self._observers = tuple(observers)

    def with_judge(self, judge: Judge, cache: ResultCache | None) -> Pipeline:
        """The same around another judge, with a cache of its own."""
        grace = self._grace * 1000.0
        return Pipeline(
            judge,
            self.fetcher,
            cache=cache,
            admission=self.admission,
            engine_grace_ms=grace,
            observers=self._observers,
        )

    async def close(self) -> None:
        """Close what is its own: cache and engine."""
        if self.cache is not None:
            await self.cache.close()
        await self.judge.engine.close()

    async def score(self, request: ScoreRequest, call: Call, *, tell: Tell | None = None) -> ScoreReply:
        """Judge every item of a request.

        Args:
            request: within the limits.
            call: what surrounds it.
            tell: is given some verdicts before the others are known, each at most once; the reply has all of them.

        Raises:
            DeadlineError: nothing was scored in time.
            OverloadedError: it would not end in time; nothing was computed.
            NotReadyError: the engine could not answer.
            ServiceError: a defect.
        """
        answered = await (self._recall(self.cache, request, call, tell) if self.cache else self._answer(request, call))
        judged = self._judge(request, answered, call)
        return ScoreReply(
            id=call.id,
            model=self.judge.manifest.name,
            versions=self.judge.versions(answered.fetched.index),
            context=answered.fetched.reference,
            results=best_first(judged.results, request.top_n),
            degraded=judged.degraded,
            timings_ms=self._finish(request, call, answered.fetched, judged),
            usage=judged.usage,
        )

    async def explain(self, request: ScoreRequest, call: Call) -> ExplainReply:
        """Judge the request's single item and decode the model's reasons for the tier that was chosen.

        Raises:
            As for `score`; the deadline also ends the decoding, and what was written until then comes back.
        """
        manifest = self.judge.manifest
        decoding = DECODE_TOKENS * manifest.rationale.max_tokens
        fetched = await self._fetch(request, call)
        computed = await self._compute.score(request, range(1), fetched, call, then=decoding)
        judged = self._judge(request, Answered(fetched, computed.rows, computed.cached_tokens), call)
        result = judged.results[0]
        tier = next(t for t in manifest.tiers if t.name == result.tier)
        promised = self.admission.hold(call.caller, call.deadline, decoding)
        with promised, stage(call, "explain"), as_service_errors():
            ids = await self._compute.decode(computed.prompt, tier.token_id, call)
        text = self.judge.tokenizer.decode(ids)
        parsed = rationale.parse(text, manifest.rationale)
        return ExplainReply(
            id=call.id,
            model=manifest.name,
            versions=self.judge.versions(fetched.index),
            context=fetched.reference,
            chunk=fetched.chunk,
            result=result,
            parsed=parsed is not None,
            rationale=_fields(parsed) if parsed else None,
            text=text,
            degraded=judged.degraded,
            timings_ms=self._finish(request, call, fetched, judged),
            usage=replace(judged.usage, total_tokens=judged.usage.total_tokens + len(ids)),
        )

    async def _fetch(self, request: ScoreRequest, call: Call, *, skip: bool = False) -> Fetched:
        fetcher = self.fetcher.of(call.caller.tenant)
        with stage(call, "fetch"):
            if skip:
                return fetcher.skip(request.context)
            fetched = await fetcher.fetch(request.query, request.context, call.deadline)
        call.timings_ms.update(fetched.timings_ms)
        return fetched

    async def _answer(self, request: ScoreRequest, call: Call) -> Answered:
        """Rows of every item from the engine."""
        fetched = await self._fetch(request, call, skip=self._step(call) >= Step.NO_RETRIEVAL)
        computed = await self._compute.score(request, range(len(request.candidates)), fetched, call)
        return Answered(fetched, computed.rows, computed.cached_tokens)

    async def _recall(self, cache: ResultCache, request: ScoreRequest, call: Call, tell: Tell | None) -> Answered:
        """Rows from the cache, and of the rest from the engine."""
        tenant = call.caller.tenant
        basis = self.fetcher.of(tenant).basis(request.context)
        with stage(call, "recall"):
            recalled = await cache.recall(tenant, basis, request, call.deadline)
        if not recalled.missing and recalled.fetched is not None:
            if recalled.due and self._step(call) is Step.EVERYTHING:
                cache.refresh(recalled, partial(self._refresh, cache, recalled, request, call.caller))
            tokens = prompt_tokens(recalled.rows)
            return Answered(recalled.fetched, recalled.rows, tokens, len(recalled.rows))
        return await self._complete(cache, recalled, request, call, tell)

    async def _complete(
        self, cache: ResultCache, recalled: Recalled, request: ScoreRequest, call: Call, tell: Tell | None = None
    ) -> Answered:
        step = self._step(call)
        hits = len(recalled.rows) - len(recalled.missing)
        if hits and recalled.fetched is not None and step >= Step.CACHE_ONLY:
            rows = recalled.rows.copy()
            rows["left_out"][recalled.missing] = LEFT_OUT.index(Degraded.CACHE_ONLY)
            return Answered(recalled.fetched, rows, prompt_tokens(rows), hits)
        # Without a chunk, hits that were scored with one would have to be scored again: that saves nothing.
        fetched = await self._fetch(request, call, skip=not hits and step >= Step.NO_RETRIEVAL)
        fresh_items = fresh_tokens = 0
        refused: list[ServiceError] = []

        async def compute(positions: Sequence[int]) -> Rows:
            """What the engine cannot do in time or at all must not take the hits with it."""
            nonlocal fresh_items, fresh_tokens
            try:
                computed = await self._compute.score(request, positions, fetched, call)
            except (DeadlineError, OverloadedError, NotReadyError) as error:
                refused.append(error)
                status = ItemStatus.FAILED if isinstance(error, NotReadyError) else ItemStatus.EXPIRED
                left_out = Degraded.CACHE_ONLY if isinstance(error, OverloadedError) else None
                return unscored(len(positions), len(self.judge.manifest.tiers), status, left_out)
            fresh_items += int((computed.rows["status"] == OK).sum())
            fresh_tokens += computed.prompt.tokens - computed.cached_tokens
            return computed.rows

        computing = Parts(request, self.judge.manifest, compute, tell) if tell else compute
        rows = await cache.complete(recalled, fetched, computing, call.deadline, self._grace)
        scored_items = int((rows["status"] == OK).sum())
        if refused and not scored_items:
            raise refused[0]
        known_tokens = max(0, prompt_tokens(rows) - fresh_tokens)
        return Answered(fetched, rows, known_tokens, scored_items - fresh_items)

    async def _refresh(self, cache: ResultCache, recalled: Recalled, request: ScoreRequest, caller: Caller) -> None:
        """Compute a request again while its scores are still in the cache. Gives way to everything else."""
        call = Call(
            id="refresh",
            deadline=Deadline.after(REFRESH_MS),
            started=time.monotonic(),
            caller=replace(caller, priority=Priority.BATCH),
        )
        await self._complete(cache, cache.forgotten(recalled), request, call)

    def _step(self, call: Call) -> Step:
        return self.admission.step_for(call.caller)

    def _judge(self, request: ScoreRequest, answered: Answered, call: Call) -> Judged:
        with stage(call, "judge"):
            results = self._verdicts(request, answered.rows)
            degraded = _degraded(answered)
        tokens = prompt_tokens(answered.rows)
        return Judged(results, degraded, Usage(tokens, answered.cached_tokens, tokens, answered.cached_items))

    def _verdicts(self, request: ScoreRequest, rows: Rows) -> tuple[ItemResult, ...]:
        """As `verdicts`; the same rows for the same request are judged once."""
        manifest, raw = self.judge.manifest, rows.tobytes()
        known: tuple[Manifest, bytes, tuple[ItemResult, ...]] | None = request.derived.get("verdicts")
        if known is not None and known[0] is manifest and known[1] == raw:
            return known[2]
        results = verdicts(manifest, request.candidates, rows)
        request.derived["verdicts"] = manifest, raw, results
        return results

    def _finish(self, request: ScoreRequest, call: Call, fetched: Fetched, judged: Judged) -> dict[str, float]:
        """Stop the clock and tell the observers; the time of each stage."""
        call.timings_ms["total"] = round((time.monotonic() - call.started) * 1000.0, 3)
        for observer in self._observers:
            observer.judged(request, call, fetched, judged, self.judge)
        return dict(call.timings_ms)


def _degraded(answered: Answered) -> tuple[Degraded, ...]:
    rows, fetched = answered.rows, answered.fetched
    statuses = set(rows["status"].tolist())
    if OK not in statuses:
        if FAILED in statuses:
            raise NotReadyError("the engine failed on every item", retry_after_ms=1000)
        raise DeadlineError("the deadline passed before any item was scored; allow more time or send fewer items")
    late = EXPIRED in statuses
    why = {LEFT_OUT[reason] for reason in rows["left_out"][rows["status"] == EXPIRED].tolist()} if late else set()
    flags = {
        Degraded.DEADLINE: None in why,
        Degraded.ENGINE: FAILED in statuses,
        Degraded.CONTEXT: fetched.failed and not fetched.skipped,
        Degraded.NO_RETRIEVAL: fetched.skipped,
        Degraded.CACHE_ONLY: Degraded.CACHE_ONLY in why,
        Degraded.FIRST_ITEMS: Degraded.FIRST_ITEMS in why,
    }
    return tuple(flag for flag, raised in flags.items() if raised)


def _fields(parsed: rationale.Rationale) -> RationaleFields:
    return RationaleFields(
        category=parsed.category,
        attributes=tuple(AttributeJudgement(name, verdict) for name, verdict in parsed.attributes),
        context=parsed.context,
        reason=parsed.reason,
    )
