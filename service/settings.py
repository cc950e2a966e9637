"""Settings: one class, read from `TIERWISE_*` variables over `tierwise.yaml` over defaults.

A wrong setting stops the start and is named. A variable that names no setting does too, since a misspelt limit that is
silently ignored is found only under load.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as PydanticSettingsError

from models.manifest import SHIPPED
from service.access.settings import AccessSettings, TlsSettings
from service.admission.settings import AdmissionSettings
from service.cache.settings import CacheSettings
from service.tracing import TracingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "TIERWISE_"
# Kubernetes sets these for a Service called `tierwise`; they are not ours.
_KUBERNETES = re.compile(r"TIERWISE_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP).*)?)")
_SECRET = re.compile(r"(url|password|secret|api_key|keys)s?(\.\d+)?$")

Port = Annotated[int, Field(ge=0, le=65535)]


class EngineName(StrEnum):
    """Engines that can stand behind the port."""

    ONNX_INT8 = "onnx-int8"
    ONNX_FLOAT32 = "onnx-float32"
    VLLM = "vllm"
    VLLM_SERVER = "vllm-server"


class SettingsError(Exception):
    """A setting is wrong; the message has one line per setting, with its name."""


class Limits(BaseModel):
    """What one request may hold. Sizes in characters, bytes or items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: int = Field(default=256, gt=0, description="items in one request")
    query_characters: int = Field(default=1_000, gt=0, description="characters of a query")
    context_characters: int = Field(default=20_000, gt=0, description="characters of a caller's own context")
    id_characters: int = Field(default=256, gt=0, description="characters of an item's id")
    body_bytes: int = Field(default=4 * 2**20, gt=0, description="bytes of a request body")


class ConnectionSettings(BaseModel):
    """What one connection of the HTTP door may hold and how slow it may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    most: int = Field(default=1_000, gt=0, description="connections at a time; one more is turned away with 503")
    headers: int = Field(default=100, gt=0, description="headers of a request")
    head_bytes: int = Field(default=32_768, gt=0, description="bytes of a request's line and headers")
    head_seconds: float = Field(default=10.0, gt=0, description="time for a request's line and headers to arrive")
    body_seconds: float = Field(default=10.0, gt=0, description="time for a request's body to arrive")
    write_seconds: float = Field(default=10.0, gt=0, description="time for a caller to take what it is sent")


class VllmSettings(BaseModel):
    """Choices for the vLLM engines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    urls: tuple[str, ...] = Field(default=(), description="servers of the engine vllm-server, as a JSON list")
    model: str | None = Field(default=None, description="name of the judge on the servers; their only one if unset")
    api_key: SecretStr | None = Field(default=None, description="bearer token for the servers")
    hedge_ms: float | None = Field(default=None, gt=0, description="ask a second server after so long; never if unset")
    dtype: str | None = Field(default=None, description="arithmetic of the engine vllm; the checkpoint's if unset")
    compiled: bool = Field(default=True, description="engine vllm: faster steps for a slower start")
    adapters: dict[str, Path] = Field(
        default={},
        description="folders of LoRA adapters, by the name that requests give as model; JSON in the environment",
    )


class ShadowSettings(BaseModel):
    """A candidate that is tried on live requests. Without a checkpoint the live one judges, with other knowledge."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path | None = Field(default=None, description="a second checkpoint; not with the engine vllm")
    urls: tuple[str, ...] = Field(
        default=(), description="its servers with the engine vllm-server, as a JSON list; those of vllm.urls if unset"
    )
    model: str | None = Field(default=None, description="its name on the servers; their only one if unset")
    knowledge: Path | None = Field(default=None, description="a second knowledge folder")
    share: float = Field(default=0.05, gt=0, le=1, description="of the requests that the candidate judges too")
    threads: int = Field(default=1, gt=0, description="compute threads of the second checkpoint")

    @model_validator(mode="after")
    def _check_whole(self) -> ShadowSettings:
        if self.checkpoint is None and (self.urls or self.model is not None):
            raise ValueError("urls and model are of a candidate: they need checkpoint")
        return self


class HealthSettings(BaseModel):
    """When the service calls itself ready. A probe sends the checkpoint's canaries through the live engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probe_seconds: float = Field(default=10.0, gt=0, description="pause between probes")
    probe_timeout_seconds: float = Field(default=5.0, gt=0, description="time that a probe may take")
    retry_seconds: float = Field(default=1.0, gt=0, description="pause after a probe that failed")
    failures: int = Field(default=3, gt=0, description="probes in a row without an answer that end readiness")
    recoveries: int = Field(default=2, gt=0, description="good probes in a row that bring it back")
    hang_seconds: float = Field(default=30.0, gt=0, description="an engine with work and no step for so long is hung")


class TenantSettings(BaseModel):
    """What one tenant has of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    knowledge: Path = Field(description="its knowledge snapshot folder; it never sees the shared one")
    tau: float | None = Field(default=None, description="its score gate; the snapshot's own if unset")


class Settings(BaseSettings):
    """Everything an operator can choose. Nested names join with two underscores: `TIERWISE_LIMITS__ITEMS=64`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    checkpoint: Path = Field(default=SHIPPED, description="checkpoint folder with its tierwise.json")
    checkpoint_refresh_seconds: float | None = Field(
        default=None, gt=0, description="pause between looks for a new checkpoint in its folder; none if unset"
    )
    engine: EngineName = Field(default=EngineName.ONNX_INT8, description="engine behind the port")
    workers: int = Field(default=1, gt=0, description="processes that share the port, each with an engine of its own")
    threads: int | None = Field(
        default=None, gt=0, description="compute threads of an embedded engine, workers share them; all cores if unset"
    )

    cache_dir: Path | None = Field(default=None, description="built graphs; the user's cache folder if unset")

    knowledge: Path | None = Field(default=None, description="knowledge snapshot folder; no retrieval if unset")
    tau: float | None = Field(default=None, description="score gate of retrieval; the snapshot's own if unset")
    knowledge_refresh_seconds: float = Field(default=30.0, gt=0, description="pause between looks for a new snapshot")
    retrieval_budget_ms: float = Field(default=20.0, gt=0, description="time for the chunk; none when it runs out")

    deadline_ms: float = Field(default=1_000.0, gt=0, description="budget of a call; a caller can only ask for less")
    engine_grace_ms: float = Field(
        default=50.0, ge=0, description="wait past the deadline for a forward pass that began in time"
    )

    host: str = Field(default="127.0.0.1", description="address of the doors for callers")
    http_port: Port = Field(default=8080, description="port of the HTTP door")
    grpc_port: Port = Field(default=50051, description="port of the gRPC door")
    grpc_reserve_ms: float = Field(
        default=5.0, ge=0, description="kept back of a gRPC caller's own deadline, for the way of the answer"
    )
    admin_host: str = Field(default="127.0.0.1", description="address of the admin door")
    admin_port: Port = Field(default=9090, description="port of the admin door, /metrics among others")

    limits: Limits = Limits()
    vllm: VllmSettings = VllmSettings()
    cache: CacheSettings = CacheSettings()
    access: AccessSettings = AccessSettings()
    tracing: TracingSettings = TracingSettings()
    shadow: ShadowSettings = ShadowSettings()
    tls: TlsSettings = TlsSettings()
    connections: ConnectionSettings = ConnectionSettings()
    admission: AdmissionSettings = AdmissionSettings()
    tenants: dict[str, TenantSettings] = Field(
        default={}, description="what tenants have of their own, by name: knowledge and tau; JSON in the environment"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least level logged")
    keep_alive_seconds: float = Field(default=75.0, ge=0, description="an idle connection is closed after so long")
    drain_pause_seconds: float = Field(
        default=0.0, ge=0, description="after SIGTERM serve on, not ready, until load balancers have noticed"
    )
    drain_seconds: float = Field(default=20.0, ge=0, description="then wait so long for requests in flight")
    health: HealthSettings = HealthSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the file; no .env file and no secrets folder."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=_read_file())


def _file() -> Path:
    return Path(os.environ.get(f"{PREFIX}CONFIG", "tierwise.yaml"))


def _read_file() -> dict[str, Any]:
    try:
        content = yaml.safe_load(_file().read_bytes()) or {}
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{_file()} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{_file()} must hold `name: value` lines, it holds a {type(content).__name__}")
    return content


def load_settings(**overrides: object) -> Settings:
    """Settings from all sources; an override that is None counts as not given.

    Raises:
        SettingsError: one line per wrong setting, each with its name.
    """
    if unknown := _unknown_variables(os.environ):
        raise SettingsError("\n".join(f"{name}: no such setting; see `tierwise serve --help`" for name in unknown))
    if f"{PREFIX}CONFIG" in os.environ and not _file().is_file():
        raise SettingsError(f"{PREFIX}CONFIG: there is no file {_file()}")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type] # validated by pydantic, like every other source
    except ValidationError as error:
        lines = []
        for issue in error.errors(include_url=False, include_context=False):
            path = ".".join(str(part) for part in issue["loc"])
            variable = PREFIX + path.replace(".", "__").upper()
            lines.append(f"{path} ({variable}): {issue['msg']}{_shown(path, issue['input'])}")
        raise SettingsError("\n".join(lines)) from error
    except PydanticSettingsError as error:  # a nested variable that is not JSON
        raise SettingsError(f"a {PREFIX}* variable cannot be read: {error}") from error


def _shown(path: str, value: object) -> str:
    """A wrong value for the message; never a group of values or one that may hold a secret."""
    if isinstance(value, dict) or _SECRET.search(path):
        return ""
    return f", it is {str(value)[:80]!r}"


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    known = {f"{PREFIX}CONFIG"}
    known |= {PREFIX + name.upper() for name in Settings.model_fields}
    for group, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            known |= {f"{PREFIX}{group}__{name}".upper() for name in field.annotation.model_fields}
    names = (name for name in environment if name.startswith(PREFIX))
    return sorted(name for name in names if name not in known and not _KUBERNETES.fullmatch(name))
