"""Replies -> messages, and back for the client. Pure; what comes back equals what went in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.engines.port import ItemStatus
from service.grpc.v1 import relevance_pb2 as pb
from service.reply import (
    AttributeJudgement,
    ContextReference,
    Degraded,
    ExplainReply,
    ItemResult,
    RationaleFields,
    ScoreReply,
    Usage,
    Versions,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from models.tiers import Band
    from service.request import ScoreRequest

_TO_STATUS: Final[dict[ItemStatus, str]] = {status: f"ITEM_STATUS_{status.name}" for status in ItemStatus}
_FROM_STATUS: Final = {pb.ItemStatus.Value(name): status for status, name in _TO_STATUS.items()}


def score_summary(reply: ScoreReply, tiers: Sequence[str]) -> pb.ScoreResponse:
    """The message of a reply without its results. `tiers` are its judge's, best first."""
    return pb.ScoreResponse(
        id=reply.id,
        model=reply.model,
        versions=_versions(reply.versions),
        context=_context(reply.context),
        tiers=tiers,
        degraded=reply.degraded,
        timings_ms=reply.timings_ms,
        usage=_usage(reply.usage),
    )


def response_bytes(asked: ScoreRequest, reply: ScoreReply, tiers: Sequence[str]) -> bytes:
    """The serialised message of a reply. The results of a request that comes again are written once.

    Parts of a message that are serialised apart make the whole one when they are put together: protobuf says so.
    """
    known: tuple[tuple[ItemResult, ...], bytes] | None = asked.derived.get("results")
    if known is None or known[0] != reply.results:  # equal at once where they are the same objects
        known = reply.results, pb.ScoreResponse(results=item_results(reply.results)).SerializeToString()
        asked.derived["results"] = known
    return score_summary(reply, tiers).SerializeToString() + known[1]


def explain_response(reply: ExplainReply, tiers: Sequence[str]) -> pb.ExplainResponse:
    """The message of a reply. `tiers` are its judge's, best first."""
    (result,) = item_results([reply.result])
    return pb.ExplainResponse(
        id=reply.id,
        model=reply.model,
        versions=_versions(reply.versions),
        context=_context(reply.context),
        chunk=reply.chunk,
        tiers=tiers,
        result=result,
        rationale=_rationale(reply.rationale) if reply.rationale else None,
        text=reply.text,
        degraded=reply.degraded,
        timings_ms=reply.timings_ms,
        usage=_usage(reply.usage),
    )


def item_results(results: Iterable[ItemResult]) -> list[pb.ItemResult]:
    """The messages of results."""
    return [
        pb.ItemResult(
            id=result.id,
            index=result.index,
            status=_TO_STATUS[result.status],
            tier=result.tier,
            label=result.label,
            band=result.band,
            score=result.score,
            margin=result.margin,
            probabilities=result.probabilities.values() if result.probabilities else None,
            label_mass=result.label_mass,
            truncated=result.truncated,
            unrepresentable=result.unrepresentable,
        )
        for result in results
    ]


def score_reply(message: pb.ScoreResponse) -> ScoreReply:
    """The reply in a message."""
    return ScoreReply(
        id=message.id,
        model=message.model,
        versions=_versions_of(message.versions),
        context=_context_of(message.context) if message.HasField("context") else None,
        results=results_of(message.results, message.tiers),
        degraded=tuple(Degraded(flag) for flag in message.degraded),
        timings_ms=dict(message.timings_ms),
        usage=_usage_of(message.usage),
    )


def explain_reply(message: pb.ExplainResponse) -> ExplainReply:
    """The reply in a message."""
    rationale = _rationale_of(message.rationale) if message.HasField("rationale") else None
    (result,) = results_of([message.result], message.tiers)
    return ExplainReply(
        id=message.id,
        model=message.model,
        versions=_versions_of(message.versions),
        context=_context_of(message.context) if message.HasField("context") else None,
        chunk=message.chunk if message.HasField("chunk") else None,
        result=result,
        parsed=rationale is not None,
        rationale=rationale,
        text=message.text,
        degraded=tuple(Degraded(flag) for flag in message.degraded),
        timings_ms=dict(message.timings_ms),
        usage=_usage_of(message.usage),
    )


def results_of(messages: Iterable[pb.ItemResult], tiers: Sequence[str]) -> tuple[ItemResult, ...]:
    """The results in messages."""
    return tuple(_result_of(message, tiers) for message in messages)


def _result_of(m: pb.ItemResult, tiers: Sequence[str]) -> ItemResult:
    scored = m.status == pb.ITEM_STATUS_OK
    band: Band | None = m.band if scored else None  # type: ignore[assignment] # the service's own word
    return ItemResult(
        id=m.id,
        index=m.index,
        status=_FROM_STATUS[m.status],
        tier=m.tier if scored else None,
        label=m.label if scored else None,
        band=band,
        score=m.score if scored else None,
        margin=m.margin if scored else None,
        probabilities=dict(zip(tiers, m.probabilities, strict=True)) if scored else None,
        label_mass=m.label_mass if m.HasField("label_mass") else None,
        truncated=tuple(m.truncated),
        unrepresentable=tuple(m.unrepresentable),
    )


def _versions(versions: Versions) -> pb.Versions:
    return pb.Versions(
        checkpoint=versions.checkpoint, prompt=versions.prompt, index=versions.index, tiers=versions.tiers
    )


def _versions_of(m: pb.Versions) -> Versions:
    return Versions(m.checkpoint, m.prompt, m.index if m.HasField("index") else None, m.tiers)


def _context(context: ContextReference | None) -> pb.ContextReference | None:
    if context is None:
        return None
    return pb.ContextReference(chunk_id=context.chunk_id, source=context.source, score=context.score)


def _context_of(m: pb.ContextReference) -> ContextReference:
    chunk_id = m.chunk_id if m.HasField("chunk_id") else None
    return ContextReference(chunk_id, m.source, m.score if m.HasField("score") else None)


def _usage(usage: Usage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        total_tokens=usage.total_tokens,
        cached_items=usage.cached_items,
    )


def _usage_of(m: pb.Usage) -> Usage:
    return Usage(m.prompt_tokens, m.cached_tokens, m.total_tokens, m.cached_items)


def _rationale(rationale: RationaleFields) -> pb.Rationale:
    judged = [pb.AttributeJudgement(name=a.name, verdict=a.verdict) for a in rationale.attributes]
    return pb.Rationale(
        category=rationale.category, attributes=judged, context=rationale.context, reason=rationale.reason
    )


def _rationale_of(m: pb.Rationale) -> RationaleFields:
    judged = tuple(AttributeJudgement(a.name, a.verdict) for a in m.attributes)
    return RationaleFields(m.category, judged, m.context, m.reason)
