"""What a run's YAML may say. Unknown names are refused; defaults are the papers' where they give any."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Mapping

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Lora(_Frozen):
    """Train low-rank adapters instead of all weights; they are kept in `adapter`, and merged into the checkpoint."""

    rank: Count = 16
    alpha: Count = 32
    dropout: Share = 0.0
    targets: str | tuple[str, ...] = "all-linear"


class RequestField(StrEnum):
    """What a request to an endpoint holds beside model and messages."""

    TEMPERATURE = "temperature"
    LENGTH = "max_completion_tokens"
    SCHEMA = "response_format"


class Endpoint(_Frozen):
    """An OpenAI-compatible chat endpoint: a teacher, or a judge of steps. The key comes from the environment."""

    url: str = Field(description="up to and with /v1")
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout_s: Positive = 60.0
    concurrency: Count = 8
    longest: Count = Field(default=1024, description="tokens of an answer, a teacher's thinking among them")
    omit: tuple[RequestField, ...] = Field(
        default=(), description="fields that the endpoint does not know; without response_format no schema is held to"
    )


class StageConfig(_Frozen):
    """What every stage has."""

    base: str = Field(description="checkpoint folder, or any causal language model that transformers loads")
    output: Path = Field(description="folder of the run: state, logs, checkpoint")
    train: Path
    valid: Path | None = Field(default=None, description="labelled pairs for figures and canaries; not trained on")
    name: str = "judge"
    seed: int = 1
    epochs: Positive = 1.0
    max_steps: int = Field(default=-1, description="optimiser steps; -1 for as many as the epochs need")
    batch_size: Count = Field(default=16, description="rows of one forward pass on one device")
    accumulate: Count = Field(default=1, description="forward passes of one optimiser step")
    learning_rate: Positive = 1e-5
    schedule: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_share: Share = 0.05
    weight_decay: float = 0.01
    clip_norm: Positive = 1.0
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        default="auto", description="auto is bfloat16 on a GPU and float32 on a CPU"
    )
    activation_checkpointing: bool = False
    save_steps: Count = 200
    log_steps: Count = 10
    rationale_tokens: Count = 48
    lora: Lora | None = None

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if self.save_steps % self.log_steps:
            msg = "save_steps must be a multiple of log_steps, so that no state is saved with a loss nobody has seen"
            raise ValueError(msg)
        return self


class SftConfig(StageConfig):
    """Label first, then the rationale (2508.12365, stage 1)."""

    rationale_weight: float = Field(default=0.3, ge=0, description="of the rationale's mean loss beside the label's")
    drop_context: Share = Field(default=0.0, description="share of the rows with a chunk that are shown without it")


class DpoConfig(StageConfig):
    """Pass@N self-correction (2508.12365, stage 2)."""

    learning_rate: Positive = 5e-7
    samples: int = Field(default=8, ge=2, description="answers sampled of each prompt")
    temperature: Positive = 1.0
    beta: Positive = 0.1
    without_context: bool = Field(default=True, description="rows with a chunk are also sampled without it")
    sampling_batch: Count = 64
    teacher: Endpoint | None = Field(default=None, description="answers where no sample is right; else the gold row")


class GrpoConfig(StageConfig):
    """GRPO with difficulty-based dynamic sampling (2508.12365, stage 3; settings of 2510.11122)."""

    learning_rate: Positive = 1e-6
    group: int = Field(default=8, ge=2, description="answers sampled of each prompt; the papers have 16")
    temperature: Positive = 0.99
    top_k: int = Field(default=100, ge=0, description="with vllm, 0 also weighs answers by vLLM's error, as TRL does")
    gamma: Positive = Field(default=0.9, description="keep a prompt when 0 < right < gamma * group")
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    kl: float = Field(default=0.02, ge=0)
    clamp: Positive = 2.0
    balanced: bool = Field(default=True, description="down-sample to equal tiers and take them in turns")
    pool_confidence: Share = Field(
        default=1.0, description="learn from rows where the base is less sure than this; 0.7 in 2510.11122"
    )
    vllm: Literal["off", "colocate", "server"] = Field(default="off", description="where answers are sampled")
    vllm_url: str | None = Field(default=None, description="with vllm: server, of `trl vllm-serve`")

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        if self.batch_size * self.accumulate % self.group:
            msg = (
                f"batch_size * accumulate ({self.batch_size * self.accumulate}) must be a multiple of group "
                f"({self.group}), so that a step has whole groups"
            )
            raise ValueError(msg)
        if (self.vllm == "server") != (self.vllm_url is not None):
            msg = "vllm: server and vllm_url, the address of `trl vllm-serve`, go together"
            raise ValueError(msg)
        return self


class DyknowConfig(GrpoConfig):
    """Two rollout groups for each pair with a chunk: without it and with it (2510.11122)."""

    pool_confidence: Share = 0.7

    @model_validator(mode="after")
    def _whole_pairs(self) -> Self:
        if self.batch_size * self.accumulate % (2 * self.group):
            msg = "batch_size * accumulate must be a multiple of 2 * group: a pair has two groups"
            raise ValueError(msg)
        return self


class AgrlConfig(GrpoConfig):
    """Rule-aware reward shaping and adaptive guided replay (2510.08048)."""

    guided: int = Field(
        default=8, ge=0, description="guided answers sampled of a failing prompt; 0 switches replay off"
    )

    @model_validator(mode="after")
    def _sampled_in_groups(self) -> Self:
        if not self.guided or self.vllm == "off":
            return self
        if not self.top_k:
            msg = "guided replay through vLLM needs top_k above 0: TRL's correction of its probabilities knows no hints"
            raise ValueError(msg)
        if self.vllm == "server" and self.guided != self.group:
            msg = f"guided must be group ({self.group}) with vllm: server, which samples prompts in whole groups"
            raise ValueError(msg)
        return self


class SrpoConfig(GrpoConfig):
    """Step rewards, diversified filters, a curriculum of three stages (2510.07972)."""

    cap: Count = Field(default=4, description="rationales that say the same and are learned from, in a group")
    judge: Endpoint | None = Field(default=None, description="judges the steps that no gold verdict covers")


class DistillConfig(StageConfig):
    """Soft labels of a teacher: the rows' `probabilities`, or a checkpoint that scores them first."""

    teacher: Path | None = Field(default=None, description="checkpoint folder; none when rows bring probabilities")
    temperature: Positive = 1.0
    prototype_strength: Share = Field(default=0.3, description="pull of doubtful labels to their domains' prototypes")


CONFIGS: Final[Mapping[str, type[StageConfig]]] = {
    "sft": SftConfig,
    "dpo": DpoConfig,
    "grpo": GrpoConfig,
    "dyknow": DyknowConfig,
    "agrl": AgrlConfig,
    "srpo": SrpoConfig,
    "distill": DistillConfig,
}


def load_config(stage: str, path: Path) -> StageConfig:
    """Read and check a run's YAML. Relative paths are relative to the file.

    Raises:
        TrainingError: not YAML, an unknown name, a bad value; the message names it.
    """
    try:
        value: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise TrainingError(f"{path} must hold settings by name")
    for name in ("output", "train", "valid", "teacher"):
        if isinstance(value.get(name), str):
            value[name] = str(path.parent / value[name])
    base = value.get("base")
    if isinstance(base, str) and (path.parent / base).is_dir():
        value["base"] = str(path.parent / base)
    try:
        return CONFIGS[stage].model_validate(value)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise TrainingError(f"{path}: {told}") from error
