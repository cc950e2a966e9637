"""`tierwise.json`: everything about a checkpoint that the service must not hard-code.

It lies beside the weights: tiers and their label token ids, prompt template, field budgets, beta, temperature,
canaries, file hashes, and where the weights come from. An adapter's folder has one of its own (`models.adapter`).
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.errors import CheckpointError
from models.tiers import Band  # noqa: TC001 - pydantic reads it at run time

MANIFEST_NAME: Final = "tierwise.json"
EVENED: Final = "onnx-int8"  # the engine whose weights depend on the canaries' prompts too (docs/engine.md)
SHIPPED: Final = Path(__file__).parent / "checkpoints" / "tierwise-mini"

FieldName = Literal["query", "chunk", "title", "brand", "category", "attributes", "description"]
SHARED_FIELDS: Final[frozenset[str]] = frozenset({"query", "chunk"})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tier(_Frozen):
    """One relevance tier. `token_id` is the label's single token at the first answer position."""

    name: str
    label: str
    token_id: int = Field(ge=0)
    band: Band


class Segment(_Frozen):
    """A literal, then optionally a field. A segment whose field is empty is left out, its literal too.

    Literals come from the checkpoint's author and may hold special tokens; fields never can.
    """

    text: str = ""
    field: FieldName | None = None


class PromptTemplate(_Frozen):
    """Shared prefix [instruction | query | chunk] and per-item suffix [item | answer marker]."""

    prefix: tuple[Segment, ...]
    suffix: tuple[Segment, ...]
    budgets: dict[FieldName, Annotated[int, Field(gt=0)]]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        outside = {s.field for s in self.prefix if s.field} - SHARED_FIELDS
        if outside:
            msg = f"prefix is shared by all items, so it cannot hold {sorted(outside)}"
            raise ValueError(msg)
        used = {s.field for s in (*self.prefix, *self.suffix) if s.field}
        if "query" not in used or "title" not in used:
            msg = "the template must hold the fields query and title"
            raise ValueError(msg)
        if missing := used - self.budgets.keys():
            msg = f"no token budget for {sorted(missing)}"
            raise ValueError(msg)
        if not self.suffix or self.suffix[-1].field is not None:
            msg = "the last suffix segment must be the answer marker, a literal"
            raise ValueError(msg)
        return self

    @property
    def hash(self) -> str:
        """Version of the prompt: 12 hex digits over template and budgets."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


class RationaleMarkers(_Frozen):
    """Literals that open each rationale field after the label, in this order, and the end-of-answer token."""

    category: str
    attributes: str
    context: str
    reason: str
    end_token_id: int = Field(ge=0)
    max_tokens: int = Field(default=64, gt=0)


class CanaryItem(_Frozen):
    """Item fields of a canary, as plain text."""

    title: str
    brand: str = ""
    category: str = ""
    attributes: str = ""
    description: str = ""


class Canary(_Frozen):
    """A pair whose tier is known. An engine that answers differently is not serving this checkpoint."""

    query: str
    item: CanaryItem
    chunk: str | None = None
    tier: str
    probabilities: tuple[float, ...] = Field(
        default=(), description="label probabilities of the float32 reference, best tier first; none if not recorded"
    )


class Manifest(_Frozen):
    """The whole of `tierwise.json`. Tiers are listed best first; K = len(tiers)."""

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    base: str | None = Field(
        default=None, description="checkpoint id of the model that an adapter lies over; none for a whole model"
    )
    tiers: tuple[Tier, ...] = Field(min_length=2)
    prompt: PromptTemplate
    prompt_hash: str
    max_tokens: int = Field(gt=0, description="longest prompt the model takes, prefix + suffix")
    beta: float = Field(gt=0, lt=1)
    temperature: float = Field(default=1.0, gt=0)
    rationale: RationaleMarkers
    canaries: tuple[Canary, ...] = ()
    files: dict[str, str] = Field(description="file name -> sha256; config, tokenizer and weights")
    training: dict[str, Any] = Field(default_factory=dict)
    figures: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for attribute in ("name", "label", "token_id"):
            values = [getattr(t, attribute) for t in self.tiers]
            if len(set(values)) != len(values):
                msg = f"two tiers share the {attribute} {values}"
                raise ValueError(msg)
        if self.prompt_hash != self.prompt.hash:
            msg = f"prompt_hash is {self.prompt_hash}, the template's is {self.prompt.hash}: template edited by hand?"
            raise ValueError(msg)
        if any(len(c.probabilities) not in {0, len(self.tiers)} for c in self.canaries):
            msg = f"a canary's probabilities must be {len(self.tiers)}, one per tier"
            raise ValueError(msg)
        unknown = {c.tier for c in self.canaries} - {t.name for t in self.tiers}
        if unknown:
            msg = f"canaries expect unknown tiers {sorted(unknown)}"
            raise ValueError(msg)
        return self

    @property
    def label_token_ids(self) -> tuple[int, ...]:
        """Token id of each label, best tier first."""
        return tuple(t.token_id for t in self.tiers)

    @property
    def checkpoint_id(self) -> str:
        """`name@` and 12 hex digits over every file's hash."""
        return f"{self.name}@{_files_digest(tuple(sorted(self.files.items())), self.base)}"

    def weights_id(self, engine: str) -> str:
        """Version of the weights that the engine of that name computes with: the checkpoint's, but for int8."""
        if engine != EVENED or not self.canaries:
            return self.checkpoint_id
        asked = json.dumps([[c.query, c.chunk, c.item.model_dump()] for c in self.canaries])
        return f"{self.checkpoint_id}+{hashlib.sha256(asked.encode()).hexdigest()[:12]}"

    @property
    def tiers_id(self) -> str:
        """Version of the tier set, beta and temperature."""
        return _tiers_digest(self.tiers, self.beta, self.temperature)


@lru_cache
def _files_digest(files: tuple[tuple[str, str], ...], base: str | None) -> str:
    value = json.dumps(files if base is None else [base, files])
    return hashlib.sha256(value.encode()).hexdigest()[:12]


@lru_cache
def _tiers_digest(tiers: tuple[Tier, ...], beta: float, temperature: float) -> str:
    value = json.dumps([[t.model_dump() for t in tiers], beta, temperature])
    return hashlib.sha256(value.encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """sha256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_manifest(folder: Path, *, verify: bool = True) -> Manifest:
    """Read and check `tierwise.json` in a checkpoint folder.

    Args:
        folder: the checkpoint.
        verify: also compare every named file's sha256 with the manifest's.

    Raises:
        CheckpointError: no manifest, bad manifest, missing or changed file; the message names it.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {MANIFEST_NAME}") from error
    except ValidationError as error:
        raise CheckpointError(f"{path} is not a valid manifest: {error}") from error
    if verify:
        for name, expected in manifest.files.items():
            file = folder / name
            if not file.is_file():
                raise CheckpointError(f"{folder} lacks {name}, which {MANIFEST_NAME} names")
            if file_hash(file) != expected:
                raise CheckpointError(f"{file} is not the file {MANIFEST_NAME} names: its sha256 differs")
    return manifest


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `tierwise.json` atomically."""
    path = folder / MANIFEST_NAME
    temporary = path.with_suffix(".tmp")
    temporary.write_text(manifest.model_dump_json(indent=1, exclude_defaults=False) + "\n")
    temporary.replace(path)
