"""The pipeline: one request through fetch, write, score and judge. Both doors and the command line end here."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from models import rationale
from models.engines.port import ItemStatus
from models.errors import ModelError
from service.errors import DeadlineError, NotReadyError, from_model
from service.judge import best_first, verdicts
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
from service.rows import prompt_tokens, scored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.engines.port import Engine, Scores
    from models.manifest import Manifest
    from models.prompt import Item, Prompt, PromptWriter
    from models.tokenizer import FieldTokenizer
    from service.fetch import Fetched, Fetcher
    from service.request import Call, Candidate, ScoreRequest
    from service.rows import Rows

# Tokenizing this many characters takes about a millisecond, the most that the event loop may stand still for it.
INLINE_CHARACTERS = 3_000


@dataclass(frozen=True, slots=True)
class Judge:
    """One loaded checkpoint behind an engine. Lives as long as the process, or until the next reload."""

    manifest: Manifest
    tokenizer: FieldTokenizer
    writer: PromptWriter
    engine: Engine

    def versions(self, index: str | None) -> Versions:
        """Versions of everything that moves an answer."""
        m = self.manifest
        return Versions(checkpoint=m.checkpoint_id, prompt=m.prompt_hash, index=index, tiers=m.tiers_id)


@dataclass(frozen=True, slots=True)
class Computed:
    """What the engine made of M items of a request."""

    prompt: Prompt
    rows: Rows
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A request on its way out of the pipeline: results in the order of the request."""

    results: tuple[ItemResult, ...]
    degraded: tuple[Degraded, ...]
    usage: Usage


class Pipeline:
    """Scores and explains requests."""

    def __init__(self, judge: Judge, fetcher: Fetcher, *, engine_grace_ms: float = 50.0) -> None:
        self.judge = judge
        self.fetcher = fetcher
        self._grace = engine_grace_ms / 1000.0

    async def score(self, request: ScoreRequest, call: Call) -> ScoreReply:
        """Judge every item of a request.

        Raises:
            DeadlineError: nothing was scored in time.
            NotReadyError, OverloadedError: the engine could not answer.
            ServiceError: a defect.
        """
        fetched = await self._fetch(request, call)
        computed = await self._compute(request.query, fetched.chunk, request.candidates, call)
        judged = self._judge(request, fetched, computed.rows, computed.cached_tokens, call)
        return ScoreReply(
            id=call.id,
            model=self.judge.manifest.name,
            versions=self.judge.versions(fetched.index),
            context=fetched.reference,
            results=best_first(judged.results, request.top_n),
            degraded=judged.degraded,
            timings_ms=_total(call),
            usage=judged.usage,
        )

    async def explain(self, request: ScoreRequest, call: Call) -> ExplainReply:
        """Judge the request's single item and decode the model's reasons for the tier that was chosen.

        Raises:
            As for `score`; the deadline also ends the decoding, and what was written until then comes back.
        """
        fetched = await self._fetch(request, call)
        computed = await self._compute(request.query, fetched.chunk, request.candidates, call)
        judged = self._judge(request, fetched, computed.rows, computed.cached_tokens, call)
        result = judged.results[0]
        manifest = self.judge.manifest
        tier = next(t for t in manifest.tiers if t.name == result.tier)
        with _stage(call, "explain"), _as_service_errors():
            ids = await self._decode(computed.prompt, tier.token_id, call)
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
            timings_ms=_total(call),
            usage=replace(judged.usage, total_tokens=judged.usage.total_tokens + len(ids)),
        )

    async def _fetch(self, request: ScoreRequest, call: Call) -> Fetched:
        with _stage(call, "fetch"):
            return await self.fetcher.of(call.caller.tenant).fetch(request.query, request.context, call.deadline)

    async def _compute(self, query: str, chunk: str | None, candidates: Sequence[Candidate], call: Call) -> Computed:
        """Write the prompt of M items and have the engine score it; the prompt's tokens are what it costs."""
        with _stage(call, "write"), _as_service_errors():
            prompt = await self._write(query, chunk, [c.item for c in candidates])
        with _stage(call, "score"), _as_service_errors():
            scores = await self._score(prompt, call)
        return Computed(prompt, scored(prompt, scores), scores.cached_tokens)

    def _judge(self, request: ScoreRequest, fetched: Fetched, rows: Rows, cached_tokens: int, call: Call) -> Judged:
        with _stage(call, "judge"):
            results = verdicts(self.judge.manifest, request.candidates, rows)
            degraded = _degraded(results, fetched)
        tokens = prompt_tokens(rows)
        return Judged(results, degraded, Usage(tokens, cached_tokens, tokens, cached_items=0))

    async def _write(self, query: str, chunk: str | None, items: Sequence[Item]) -> Prompt:
        characters = len(chunk or "") + sum(len(i.title) + len(i.attributes) + len(i.description) for i in items)
        if characters <= INLINE_CHARACTERS:
            return self.judge.writer.write(query, chunk, items)
        return await asyncio.to_thread(self.judge.writer.write, query, chunk, items)

    async def _score(self, prompt: Prompt, call: Call) -> Scores:
        """Ask the engine; it drops what is late, and the timeout is for an engine that hangs."""
        remaining = call.deadline.remaining()
        if remaining == 0.0:
            raise DeadlineError("the deadline passed before the engine was asked; allow more time or send fewer items")
        timeout = None if remaining == float("inf") else remaining + self._grace
        suffixes = [s.ids for s in prompt.suffixes]
        try:
            async with asyncio.timeout(timeout):
                return await self.judge.engine.score(
                    prompt.prefix.ids, suffixes, call.deadline, scope=call.caller.tenant
                )
        except TimeoutError as error:
            raise DeadlineError("the engine did not answer before the deadline") from error

    async def _decode(self, prompt: Prompt, label: int, call: Call) -> list[int]:
        manifest = self.judge.manifest
        stream = self.judge.engine.explain(
            prompt.prefix.ids,
            prompt.suffixes[0].ids,
            call.deadline,
            label=label,
            max_tokens=manifest.rationale.max_tokens,
            scope=call.caller.tenant,
        )
        ids = [token async for token in stream]
        return ids[:-1] if ids and ids[-1] == manifest.rationale.end_token_id else ids


def _degraded(results: tuple[ItemResult, ...], fetched: Fetched) -> tuple[Degraded, ...]:
    statuses = {r.status for r in results}
    if ItemStatus.OK not in statuses:
        if ItemStatus.FAILED in statuses:
            raise NotReadyError("the engine failed on every item", retry_after_ms=1000)
        raise DeadlineError("the deadline passed before any item was scored; allow more time or send fewer items")
    flags = {
        Degraded.DEADLINE: ItemStatus.EXPIRED in statuses,
        Degraded.ENGINE: ItemStatus.FAILED in statuses,
        Degraded.CONTEXT: fetched.failed,
    }
    return tuple(flag for flag, raised in flags.items() if raised)


def _fields(parsed: rationale.Rationale) -> RationaleFields:
    return RationaleFields(
        category=parsed.category,
        attributes=tuple(AttributeJudgement(name, verdict) for name, verdict in parsed.attributes),
        context=parsed.context,
        reason=parsed.reason,
    )


def _total(call: Call) -> dict[str, float]:
    call.timings_ms["total"] = _milliseconds(call.started)
    return dict(call.timings_ms)


def _milliseconds(since: float) -> float:
    return round((time.monotonic() - since) * 1000.0, 3)


@contextmanager
def _stage(call: Call, name: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        call.timings_ms[name] = round(call.timings_ms.get(name, 0.0) + _milliseconds(started), 3)


@contextmanager
def _as_service_errors() -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise from_model(error) from error
