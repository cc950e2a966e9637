"""Rerank in the shapes that existing clients speak: Jina's and Cohere's. Documents are items with a title only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request

from service.arrival import arrival_of
from service.errors import invalid
from service.http.native import BODY_ERRORS
from service.http.problems import documented
from service.http.route import JsonRoute, call_of, gateway_of
from service.limits import DOCUMENTS, check_limits
from service.notes import note
from service.reply import Degraded
from service.schemas import CohereRerankBody, JinaRerankBody

if TYPE_CHECKING:
    from service.reply import ScoreReply

router = APIRouter(route_class=JsonRoute, tags=["rerank"])

ERRORS = documented(*BODY_ERRORS)


@dataclass(frozen=True, slots=True)
class DocumentEcho:
    """A document as it was sent."""

    text: str


@dataclass(frozen=True, slots=True)
class JinaResult:
    """One ranked document."""

    index: int
    relevance_score: float
    document: Annotated[DocumentEcho | None, Field(description="null unless return_documents")]


@dataclass(frozen=True, slots=True)
class JinaUsage:
    """Tokens of the call."""

    total_tokens: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class JinaReply:
    """Ranked documents, best first; one that was not scored in time is missing, and `degraded` says so."""

    model: str
    object: Literal["list"]
    usage: JinaUsage
    results: tuple[JinaResult, ...]
    degraded: tuple[Degraded, ...]


@dataclass(frozen=True, slots=True)
class CohereResult:
    """One ranked document."""

    index: int
    relevance_score: float


@dataclass(frozen=True, slots=True)
class CohereUnits:
    """One call is one unit."""

    search_units: int


@dataclass(frozen=True, slots=True)
class CohereVersion:
    """Version of the shape."""

    version: str


@dataclass(frozen=True, slots=True)
class CohereMeta:
    """What surrounds the results."""

    api_version: CohereVersion
    billed_units: CohereUnits
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CohereReply:
    """Ranked documents, best first; one that was not scored in time is missing, and `meta.warnings` says so."""

    id: str
    results: tuple[CohereResult, ...]
    meta: CohereMeta


@router.post("/v1/rerank", responses=ERRORS, summary="Rerank documents (Jina)")
async def jina(body: JinaRerankBody, request: Request) -> JinaReply:
    """Rank documents as Jina's `/v1/rerank` does. `relevance_score` is the expected tier in [0, 1]."""
    reply = await _rank(body, request)
    texts = body.texts if body.return_documents else None
    return JinaReply(
        model=reply.model,
        object="list",
        usage=JinaUsage(total_tokens=reply.usage.total_tokens, prompt_tokens=reply.usage.prompt_tokens),
        results=tuple(
            JinaResult(r.index, r.score, DocumentEcho(texts[r.index]) if texts else None)
            for r in reply.results
            if r.score is not None
        ),
        degraded=reply.degraded,
    )


@router.post("/v2/rerank", responses=ERRORS, summary="Rerank documents (Cohere)")
async def cohere(body: CohereRerankBody, request: Request) -> CohereReply:
    """Rank documents as Cohere's `/v2/rerank` does. `relevance_score` is the expected tier in [0, 1]."""
    budgets = gateway_of(request).judges.named(body.model).judge.manifest.prompt.budgets
    needed = budgets["title"] + budgets.get("description", 0)
    if body.max_tokens_per_doc is not None and body.max_tokens_per_doc < needed:
        raise invalid("#/max_tokens_per_doc", f"leave it out, or allow at least {needed}, the checkpoint's own budget")
    reply = await _rank(body, request)
    return CohereReply(
        id=reply.id,
        results=tuple(CohereResult(r.index, r.score) for r in reply.results if r.score is not None),
        meta=CohereMeta(api_version=CohereVersion("2"), billed_units=CohereUnits(1), warnings=tuple(_warnings(reply))),
    )


async def _rank(body: JinaRerankBody | CohereRerankBody, request: Request) -> ScoreReply:
    gateway = gateway_of(request)
    call = call_of(request, None)
    asked = body.request()
    check_limits(asked, gateway.settings.limits, DOCUMENTS)
    reply = await gateway.serving(asked.model).score(asked, call)
    note(arrival_of(request.scope).notes, asked, reply)
    return reply


def _warnings(reply: ScoreReply) -> list[str]:
    warnings = [f"degraded: {flag}" for flag in reply.degraded]
    flagged = {
        "truncated": [r.index for r in reply.results if r.truncated],
        "unrepresentable": [r.index for r in reply.results if r.unrepresentable],
    }
    lines = (f"{flag}: documents {', '.join(map(str, sorted(hits)))}" for flag, hits in flagged.items() if hits)
    return [*warnings, *lines]
