"""The native routes: score, explain, models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.requests import Request

from service import errors
from service.arrival import arrival_of
from service.http.problems import documented
from service.http.route import JsonRoute, call_of, caller_of, gateway_of
from service.limits import ONE_ITEM, check_limits
from service.notes import note
from service.reply import ExplainReply, ScoreReply, Versions
from service.schemas import ExplainBody, ScoreBody

if TYPE_CHECKING:
    from service.pipeline import Judge

CREDENTIAL_ERRORS = (errors.UnauthenticatedError, errors.ForbiddenError, errors.InvalidRequestError)
BODY_ERRORS = (
    *CREDENTIAL_ERRORS,
    errors.MalformedBodyError,
    errors.NotFoundError,
    errors.SlowRequestError,
    errors.BodyTooLargeError,
    errors.MediaTypeError,
    errors.QuotaError,
    errors.OverloadedError,
    errors.NotReadyError,
    errors.DeadlineError,
)

router = APIRouter(route_class=JsonRoute, tags=["relevance"])
plain = APIRouter(tags=["relevance"])


class TierInfo(BaseModel):
    """One tier of a judge."""

    name: str
    label: str
    band: str


class ModelInfo(BaseModel):
    """One judge: the served checkpoint, or an adapter over it."""

    id: Annotated[str, Field(description="what requests give as `model`")]
    parent: Annotated[str | None, Field(description="the judge whose weights an adapter lies over")] = None
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tierwise"
    engine: str
    versions: Versions
    tiers: Annotated[list[TierInfo], Field(description="best first")]
    beta: Annotated[float, Field(description="cumulative probability that a tier must reach")]
    max_tokens: int
    field_budgets: Annotated[dict[str, int], Field(description="tokens kept of each field")]


class ModelList(BaseModel):
    """Served judges."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


@router.post("/v1/score", responses=documented(*BODY_ERRORS), summary="Score items against a query")
async def score(body: ScoreBody, request: Request) -> ScoreReply:
    """How relevant is each of these items to this query? Verdicts come best first; `index` is the item's position."""
    call = call_of(request, body.deadline_ms)
    asked = body.request()
    check_limits(asked, gateway_of(request).settings.limits)
    reply = await gateway_of(request).serving(asked.model).score(asked, call)
    note(arrival_of(request.scope).notes, asked, reply)
    return reply


@router.post("/v1/explain", responses=documented(*BODY_ERRORS), summary="Score one item with reasons")
async def explain(body: ExplainBody, request: Request) -> ExplainReply:
    """Score one item and decode the model's reasons for the tier that was chosen. Slower than scoring."""
    call = call_of(request, body.deadline_ms)
    asked = body.request()
    check_limits(asked, gateway_of(request).settings.limits, ONE_ITEM)
    reply = await gateway_of(request).serving(asked.model).explain(asked, call)
    note(arrival_of(request.scope).notes, asked, reply)
    return reply


@plain.get("/v1/models", responses=documented(*CREDENTIAL_ERRORS), summary="Served judges")
async def models(request: Request) -> ModelList:
    """The served checkpoint, then the adapters over it, each with its tiers, versions and field budgets."""
    judges, created = gateway_of(request).judges, gateway_of(request).started_at
    index = judges.base.fetcher.of(caller_of(request).tenant).version
    base = judges.base.judge.manifest.name
    cards = [_card(one.judge, index, created, base if one is not judges.base else None) for one in judges]
    return ModelList(data=cards)


def _card(judge: Judge, index: str | None, created: int, parent: str | None) -> ModelInfo:
    manifest = judge.manifest
    return ModelInfo(
        id=manifest.name,
        parent=parent,
        created=created,
        engine=judge.engine.name,
        versions=judge.versions(index),
        tiers=[TierInfo(name=t.name, label=t.label, band=t.band) for t in manifest.tiers],
        beta=manifest.beta,
        max_tokens=manifest.max_tokens,
        field_budgets={str(name): budget for name, budget in manifest.prompt.budgets.items()},
    )
