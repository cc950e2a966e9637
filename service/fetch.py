"""Fetch: at most one chunk of knowledge per query, within its own time budget. Failure means none and a flag.

One chunk in the shared prefix, as in DyKnow-RAG (arXiv 2510.11122).
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from service.reply import ContextReference
from service.request import OwnContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.deadline import Deadline
    from service.request import ContextChoice

log = logging.getLogger(__name__)

SHARE = 0.25  # of the time that is left: a caller in a hurry needs scores more than a chunk
THREADS = 2  # a search takes well under a millisecond; two, so that one slow page-in does not stop the other


class Hit(Protocol):
    """A chunk that passed the score gate."""

    @property
    def chunk_id(self) -> str:
        """Name of the chunk within its snapshot."""
        ...

    @property
    def source(self) -> str:
        """Name of the document that the chunk is from."""
        ...

    @property
    def text(self) -> str:
        """What goes into the prompt."""
        ...

    @property
    def score(self) -> float:
        """Similarity to the query, at least tau."""
        ...


class Knowledge(Protocol):
    """What the pipeline needs of retrieval."""

    @property
    def version(self) -> str:
        """Version of the snapshot that answers now."""
        ...

    @property
    def tau(self) -> float:
        """Score gate: a chunk below it is not used."""
        ...

    def search(self, query: str, timings_ms: dict[str, float] | None = None) -> Hit | None:
        """The best chunk for a query, or None when its score is below the gate. Blocks; safe from several threads.

        `timings_ms` gets the milliseconds of each step.
        """
        ...


class Source(Protocol):
    """Holds the snapshot in force, which may be swapped at any time."""

    @property
    def current(self) -> Knowledge | None:
        """The knowledge to use for a request, from its start to its end."""
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """The chunk of one request, if any.

    Attributes:
        failed: a chunk was wanted and not looked for, or not in time.
        skipped: on purpose, under pressure.
    """

    chunk: str | None = None
    reference: ContextReference | None = None
    index: str | None = None
    failed: bool = False
    skipped: bool = False
    timings_ms: Mapping[str, float] = field(default_factory=dict, compare=False)  # of the steps of a search


@dataclass(frozen=True, slots=True)
class Basis:
    """Everything that the choice of a chunk for a query depends on, known before any search.

    Attributes:
        parts: equal parts and an equal query mean an equal chunk, unless retrieval fails.
        index: version of the snapshot in force, None without knowledge.
        decided: the choice itself, where it takes no search.
    """

    parts: tuple[str, ...]
    index: str | None
    decided: Fetched | None


class Fetcher:
    """Decides the chunk of a request.

    Args:
        source: knowledge to search; None for none.
        budget_ms: time for a search.
        tenants: fetchers of the tenants that have knowledge of their own.
    """

    def __init__(self, source: Source | None, budget_ms: float, tenants: Mapping[str, Fetcher] | None = None) -> None:
        self._source = source
        self._budget = budget_ms / 1000.0
        self._tenants = tenants or {}
        # Own threads: a search that hangs must not take the ones that everything else needs.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="knowledge")

    def of(self, tenant: str) -> Fetcher:
        """The fetcher for a tenant's calls: with its own knowledge and threads, or else this one."""
        return self._tenants.get(tenant, self)

    @property
    def version(self) -> str | None:
        """Version of the live snapshot, None without knowledge."""
        knowledge = self._current()
        return knowledge.version if knowledge else None

    def basis(self, context: ContextChoice) -> Basis:
        """What `fetch` would decide by, now."""
        return _basis(context, self._current())

    async def fetch(self, query: str, context: ContextChoice, deadline: Deadline) -> Fetched:
        """The chunk for a query as the caller's choice of context asks for it. Never raises but for cancellation."""
        knowledge = self._current()
        decided = _basis(context, knowledge).decided
        if knowledge is None or decided is not None:
            return decided or Fetched()
        timings: dict[str, float] = {}
        try:
            budget = deadline.within(self._budget, SHARE).remaining()
            hit = await self._search(knowledge, query, timings, budget)
        except TimeoutError:
            log.warning("retrieval took longer than its budget; judged without a chunk")
            return Fetched(index=knowledge.version, failed=True)
        except Exception:  # whatever fails in the index means no chunk, by contract
            log.exception("retrieval failed; judged without a chunk")
            return Fetched(index=knowledge.version, failed=True)
        if hit is None:
            return Fetched(index=knowledge.version, timings_ms=timings)
        reference = ContextReference(hit.chunk_id, hit.source, round(hit.score, 6))
        return Fetched(hit.text, reference, knowledge.version, timings_ms=timings)

    def skip(self, context: ContextChoice) -> Fetched:
        """What `fetch` would say if it found nothing; no search, if one were needed."""
        basis = self.basis(context)
        return basis.decided or Fetched(index=basis.index, failed=True, skipped=True)

    async def _search(
        self, knowledge: Knowledge, query: str, timings_ms: dict[str, float], seconds: float
    ) -> Hit | None:
        search = asyncio.get_running_loop().run_in_executor(self._threads, knowledge.search, query, timings_ms)
        return await asyncio.wait_for(search, seconds)

    def _current(self) -> Knowledge | None:
        return self._source.current if self._source else None

    def close(self) -> None:
        """Drop searches that have not begun; do not wait for one that hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for fetcher in self._tenants.values():
            fetcher.close()


def _basis(context: ContextChoice, knowledge: Knowledge | None) -> Basis:
    index = knowledge.version if knowledge else None
    if isinstance(context, OwnContext):
        own = Fetched(context.text, ContextReference(None, "caller", None), index)
        return Basis(("caller", context.text), index, own)
    if context == "none" or knowledge is None:
        return Basis(("none",), index, Fetched(index=index))
    return Basis(("index", knowledge.version, repr(knowledge.tau)), index, None)
