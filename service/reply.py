"""What a call answers, the same for both doors: frozen values that the HTTP door writes as JSON as they stand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from models.engines.port import ItemStatus
from models.tiers import Band


class Degraded(StrEnum):
    """Why an answer is less than it could have been."""

    DEADLINE = "deadline"  # some items were not reached in time
    ENGINE = "engine"  # the engine failed on some items
    CONTEXT = "context"  # retrieval failed or took too long; judged without a chunk
    NO_RETRIEVAL = "no_retrieval"  # under pressure no chunk was looked for
    CACHE_ONLY = "cache_only"  # under pressure items were left out whose verdict was not known
    FIRST_ITEMS = "first_items"  # under pressure only the first items were scored


@dataclass(frozen=True, slots=True)
class ItemResult:
    """The verdict on one item; from `tier` to `label_mass` null unless status is ok."""

    id: str
    index: Annotated[int, Field(description="position of the item in the request")]
    status: ItemStatus
    tier: Annotated[str | None, Field(description="name of the chosen tier")]
    label: Annotated[str | None, Field(description="the label that the model answers for this tier")]
    band: Band | None
    score: Annotated[float | None, Field(description="expected tier scaled to [0, 1]; 1 is best")]
    margin: Annotated[float | None, Field(description="distance in probability to the nearest change of tier")]
    probabilities: Annotated[dict[str, float] | None, Field(description="by tier, best first; they sum to 1")]
    label_mass: Annotated[
        float | None,
        Field(description="probability of any label at all, where the engine can give it; low is out of domain"),
    ]
    truncated: Annotated[tuple[str, ...], Field(description="fields cut to the checkpoint's token budget")]
    unrepresentable: Annotated[tuple[str, ...], Field(description="fields with text that the tokenizer does not know")]


@dataclass(frozen=True, slots=True)
class ContextReference:
    """The one chunk that every item was judged with."""

    chunk_id: Annotated[str | None, Field(description="null for the caller's own text")]
    source: Annotated[str, Field(description="where the chunk is from; `caller` for the caller's own text")]
    score: Annotated[float | None, Field(description="similarity to the query; null for the caller's own text")]


@dataclass(frozen=True, slots=True)
class Versions:
    """What produced the answer. Equal versions and equal input give equal probabilities."""

    checkpoint: str
    prompt: str
    index: str | None
    tiers: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the call: the prefix is counted once, every item's suffix on top."""

    prompt_tokens: int
    cached_tokens: Annotated[int, Field(description="of these, not computed for this call")]
    total_tokens: int
    cached_items: Annotated[int, Field(description="items whose scores were not computed for this call")]


@dataclass(frozen=True, slots=True)
class ScoreReply:
    """Verdicts, best first: by score, then by position; items without a verdict last."""

    id: str
    model: str
    versions: Versions
    context: ContextReference | None
    results: tuple[ItemResult, ...]
    degraded: tuple[Degraded, ...]
    timings_ms: dict[str, float]
    usage: Usage


@dataclass(frozen=True, slots=True)
class AttributeJudgement:
    """One constraint of the query and whether the item satisfies it."""

    name: str
    verdict: str


@dataclass(frozen=True, slots=True)
class RationaleFields:
    """The model's reasons in the project's one schema."""

    category: str
    attributes: tuple[AttributeJudgement, ...]
    context: str
    reason: str


@dataclass(frozen=True, slots=True)
class ExplainReply:
    """One verdict with the model's reasons."""

    id: str
    model: str
    versions: Versions
    context: ContextReference | None
    chunk: Annotated[str | None, Field(description="text of the chunk")]
    result: ItemResult
    parsed: Annotated[bool, Field(description="whether the model's text follows the rationale schema")]
    rationale: Annotated[RationaleFields | None, Field(description="null when the text does not parse")]
    text: Annotated[str, Field(description="what the model wrote after the label, as it stands")]
    degraded: tuple[Degraded, ...]
    timings_ms: dict[str, float]
    usage: Usage
