"""What an operator can choose of admission."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class AdmissionSettings(BaseModel):
    """Bounds of one service; with several workers each takes an equal part of rates, tokens and bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="refuse what cannot end in time; off leaves it to the engine")
    queue_tokens: int = Field(default=200_000, gt=0, description="tokens taken on and not finished")
    in_flight_bytes: int = Field(default=256 * 2**20, gt=0, description="bytes of all request bodies held at a time")
    requests_per_second: float | None = Field(
        default=None, gt=0, description="quota of a tenant without one of its own; none if unset"
    )
    tokens_per_second: float | None = Field(
        default=None, gt=0, description="quota of a tenant without one of its own, in tokens to compute; none if unset"
    )
    burst_seconds: float = Field(default=2.0, gt=0, description="an unused quota adds up for so long")
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="share of the queue by tenant, as a JSON object; 1 if not named"
    )
    brown_out: Literal["none", "retrieval", "cache", "items"] = Field(
        default="cache", description="deepest step under pressure: skip retrieval, cached items only, first items only"
    )
    items_share: float = Field(
        default=0.5, gt=0, le=1, description="least share of its items that a request under brown-out keeps"
    )
