"""The engine port: token ids in, label log-probabilities out. An engine knows nothing about text, tiers or HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from models.deadline import Deadline
    from models.manifest import Manifest


class ItemStatus(StrEnum):
    """What became of one item of a request."""

    OK = "ok"
    EXPIRED = "expired"  # its turn came after the deadline; nothing was computed for it
    FAILED = "failed"  # the engine could not score it


@dataclass(frozen=True, slots=True)
class Scores:
    """Label log-probabilities of N items. Arrays share their first axis.

    Attributes:
        logprobs: float32 [N, K], log-softmax over the K label tokens alone, in the manifest's order; NaN where not ok.
        label_mass: float32 [N], probability of any label over the whole vocabulary, or None when the engine
            computes label rows only.
        status: N item statuses.
        cached_tokens: prefix tokens that were not computed for this request.
        queued_ms: until its first forward pass began; None where the engine cannot say.
    """

    logprobs: NDArray[np.float32]
    status: tuple[ItemStatus, ...]
    label_mass: NDArray[np.float32] | None = None
    cached_tokens: int = 0
    queued_ms: float | None = None


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """A snapshot for readiness: busy is not dead.

    Attributes:
        alive: the engine makes progress or has nothing to do.
        detail: one sentence; names what is wrong when not alive.
        queued_tokens: tokens admitted and not yet computed.
        steps: forward passes finished since start; a heartbeat.
        batches: forward passes over items so far, by how many items were in them; empty where the engine cannot say.
        wrong: how often it found by itself that it had begun to answer known pairs wrongly; 0 where it does not look.
    """

    alive: bool
    detail: str
    queued_tokens: int
    steps: int
    batches: Mapping[int, int] = field(default_factory=dict)
    wrong: int = 0


class Engine(Protocol):
    """What the pipeline needs of an engine. All methods are safe to call concurrently from one event loop."""

    @property
    def name(self) -> str:
        """Engine and precision, e.g. `onnx-int8`: part of the cache key."""
        ...

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """Score N suffixes after one shared prefix: one forward pass, read at each suffix's last token.

        An item's answer does not depend on its neighbours, on their order or on any cache. Items whose turn comes
        after the deadline come back EXPIRED. Cancelling the call drops work that has not begun.
        Keys and values kept between calls are reused only among calls of equal `scope` (a tenant), so that nobody can
        time another's prompts; an engine that keeps none ignores it.

        Raises:
            EngineBusyError, EngineUnavailableError, PromptTooLongError.
        """
        ...

    def explain(
        self,
        prefix: Sequence[int],
        suffix: Sequence[int],
        deadline: Deadline,
        *,
        label: int,
        max_tokens: int,
        scope: str = "",
    ) -> AsyncIterator[int]:
        """Greedy decode after `prefix + suffix + [label token]`: yields token ids until end, limit or deadline."""
        ...

    async def warm_up(self) -> None:
        """Load, compile and run once, so that the first request is not the slow one."""
        ...

    def health(self) -> EngineHealth:
        """Cheap; never blocks on the engine."""
        ...

    async def close(self) -> None:
        """Finish what runs, release everything. Idempotent."""
        ...


@runtime_checkable
class AdapterHost(Protocol):
    """An engine that serves adapters beside its checkpoint."""

    def adapter(self, name: str, manifest: Manifest) -> Engine:
        """The adapter of that name, with its own labels, in the same queue. Closing it leaves this engine open.

        Raises:
            CheckpointError: there is none of that name.
        """
        ...
