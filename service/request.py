"""The one request type of both doors, and the call it arrives in. Pure values; no I/O."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from models.deadline import Deadline
    from models.prompt import Item


@dataclass(frozen=True, slots=True)
class OwnContext:
    """A chunk that the caller brings along; nothing is retrieved."""

    text: str


ContextChoice = Literal["auto", "none"] | OwnContext


@dataclass(frozen=True, slots=True)
class Candidate:
    """One item as its caller names it."""

    id: str
    item: Item


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """How relevant is each of these N items to this query?

    Attributes:
        query: not blank.
        candidates: N >= 1, ids unique.
        context: retrieve a chunk, use none, or use the caller's.
        top_n: return this many of the best; None for all.
        model: name of the judge that is asked; the checkpoint's own for None.
        derived: what was worked out from this request alone, for when the same one comes again (service.repeats).
    """

    query: str
    candidates: tuple[Candidate, ...]
    context: ContextChoice = "auto"
    top_n: int | None = None
    model: str | None = None
    derived: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


class Priority(StrEnum):
    """Who gives way under pressure: batch first, critical last."""

    CRITICAL = "critical"
    DEFAULT = "default"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Quota:
    """How much may be asked for under one name. None is no limit.

    Attributes:
        name: calls with quotas of equal name draw on the same allowance.
    """

    name: str
    requests_per_second: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Nothing of one tenant (cache, knowledge, quota, kept keys and values) is visible to another.

    Attributes:
        tenant: scope of everything that is kept between calls; every caller's without keys.
        priority: of this call.
        quotas: every one of them must have room; the tenant's, and its key's own.
        by_default: the configured quota counts too, since the tenant has none of its own.
    """

    tenant: str = "public"
    priority: Priority = Priority.DEFAULT
    quotas: tuple[Quota, ...] = ()
    by_default: bool = True


class Timings(dict[str, float]):
    """Milliseconds by stage.

    Attributes:
        spans: stage, and monotonic seconds at which it began and ended, as often as it ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[str, float, float]] = []

    def add(self, stage: str, began: float) -> None:
        """A stage that began at these monotonic seconds ends now."""
        ended = time.monotonic()
        self[stage] = round(self.get(stage, 0.0) + (ended - began) * 1000.0, 3)
        self.spans.append((stage, began, ended))


@dataclass(frozen=True, slots=True)
class Call:
    """What surrounds a request: its name, its caller, its deadline and the stages that passed before the pipeline.

    Attributes:
        id: `x-request-id`, the caller's or ours.
        deadline: carried through every step and into the engine's queue.
        started: monotonic seconds when the first byte arrived.
        timings_ms: milliseconds by stage, filled while the call runs.
    """

    id: str
    deadline: Deadline
    started: float
    timings_ms: Timings = field(default_factory=Timings)
    caller: Caller = field(default_factory=Caller)
