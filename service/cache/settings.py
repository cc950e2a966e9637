"""Settings of the result cache."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from redis.asyncio.connection import parse_url


def _url(value: SecretStr) -> SecretStr:
    try:
        parse_url(value.get_secret_value())
    except ValueError as error:
        msg = "must be redis://HOST:PORT/DB, rediss:// (TLS) or unix:///PATH"
        raise ValueError(msg) from error
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"\S+:\d{1,5}", value):
        msg = "must be HOST:PORT"
        raise ValueError(msg)
    return value


class CacheSettings(BaseModel):
    """Choices for the result cache. In this process it is on, Redis is off until it has an address."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    enabled: bool = Field(default=True, description="keep scores by content; also joins equal requests in flight")
    memory_bytes: int = Field(default=64 * 2**20, ge=0, description="bytes kept in each process; 0 for none")
    ttl_seconds: float = Field(default=86_400.0, gt=0, description="longest life of a score")
    redis_url: Annotated[SecretStr, AfterValidator(_url)] | None = Field(
        default=None,
        description="redis://, rediss:// or unix:// of Redis, or of one node of a Cluster; no Redis if unset",
    )
    redis_cluster: bool = Field(default=False, description="the address is a node of a Redis Cluster")
    redis_sentinels: tuple[Annotated[str, AfterValidator(_address)], ...] = Field(
        default=(),
        description="HOST:PORT of each Sentinel, as a JSON list; redis_url then gives user, password, DB and TLS",
    )
    redis_service: str = Field(default="mymaster", description="name of the service that the Sentinels watch")
    redis_sentinel_password: SecretStr | None = Field(default=None, description="password of the Sentinels themselves")
    redis_timeout_ms: float = Field(
        default=5.0, gt=0, description="longest wait for Redis, once; then it is left alone"
    )
    redis_connections: int = Field(default=8, gt=0, description="connections of each process")
    redis_queue: int = Field(default=10_000, gt=0, description="scores that wait to be written; more are dropped")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.redis_cluster and self.redis_sentinels:
            msg = "redis_cluster and redis_sentinels exclude each other"
            raise ValueError(msg)
        if self.redis_cluster and self.redis_url is None:
            msg = "redis_cluster needs redis_url, the address of one of its nodes"
            raise ValueError(msg)
        return self

    @property
    def remote(self) -> bool:
        """Whether there is a Redis."""
        return self.redis_url is not None or bool(self.redis_sentinels)
