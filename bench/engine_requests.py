"""The thousand committed pairs as engine requests, and one way of timing any peer on them."""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from models.manifest import load_manifest
from models.prompt import Item, PromptWriter
from models.tokenizer import FieldTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

PAIRS = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "pairs.jsonl"
FEWEST_REQUESTS = 2
RESAMPLES = 500


@dataclass(frozen=True)
class Request:
    """One query with N items: ids for language models, text for a cross-encoder."""

    prefix: tuple[int, ...]
    suffixes: tuple[tuple[int, ...], ...]
    query: str
    texts: tuple[str, ...]

    @property
    def prompts(self) -> list[list[int]]:
        """Whole prompts."""
        return [[*self.prefix, *suffix] for suffix in self.suffixes]


@dataclass(frozen=True)
class Cell:
    """What one peer did at one size. Medians; `low` and `high` bound items/s at 95 %; ms are per request."""

    items: int
    prefix: str
    requests: int
    items_per_s: float
    low: float
    high: float
    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, items: int, prefix: str, seconds: Sequence[float]) -> Self:
        """From the time that each request took."""
        times = np.array(seconds)
        resampled = np.median(np.random.default_rng(0).choice(times, (RESAMPLES, len(times))), axis=1)
        low, high = np.quantile(items / resampled, [0.025, 0.975])
        p50, p99 = np.quantile(times * 1000, [0.5, 0.99])
        return cls(
            items=items,
            prefix=prefix,
            requests=len(times),
            items_per_s=float(items / np.median(times)),
            low=float(low),
            high=float(high),
            p50_ms=float(p50),
            p99_ms=float(p99),
        )


class Peer(Protocol):
    """Something that scores requests. `salt` names a cache that no other call has used."""

    async def start(self) -> None:
        """Load, compile, warm."""
        ...

    async def warm_prefix(self, request: Request, salt: str) -> None:
        """Have the prefix, and nothing else of the request, in the salt's cache."""
        ...

    async def score(self, request: Request, salt: str) -> np.ndarray:
        """Label probabilities [N, K]."""
        ...

    async def stop(self) -> None:
        """Release everything."""
        ...


def load_requests(checkpoint: Path, items: int) -> list[Request]:
    """The pairs grouped by query in requests of `items`; what is left of a query at the end is not used."""
    manifest = load_manifest(checkpoint)
    writer = PromptWriter(manifest, FieldTokenizer(checkpoint))
    requests = []
    for query, chunk, chosen in grouped_pairs(items):
        prompt = writer.write(query, chunk, chosen)
        texts = tuple(f"{i.title} {i.brand} {i.attributes} {i.description}" for i in chosen)
        asked = f"{query} {chunk}" if chunk else query
        requests.append(Request(prompt.prefix.ids, tuple(s.ids for s in prompt.suffixes), asked, texts))
    order = np.random.default_rng(3).permutation(len(requests))
    return [requests[n] for n in order]


def grouped_pairs(items: int) -> list[tuple[str, str | None, list[Item]]]:
    """(query, chunk, items) of the committed pairs, so many items of one query each."""
    groups: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for line in PAIRS.read_text().splitlines():
        row = json.loads(line)
        groups.setdefault((row["query"], row["chunk"]), []).append(row["item"])
    return [
        (query, chunk, [_item(row) for row in rows[start : start + items]])
        for (query, chunk), rows in groups.items()
        for start in range(0, len(rows) - items + 1, items)
    ]


def _item(row: dict[str, Any]) -> Item:
    attributes = ", ".join(f"{name} {value}" for name, value in row.get("attributes", {}).items())
    return Item(
        title=row["title"],
        brand=row.get("brand", ""),
        category=row.get("category", ""),
        attributes=attributes,
        description=row.get("description", ""),
    )


async def times(peer: Peer, requests: Sequence[Request], *, first: int, warm: bool, seconds: float) -> list[float]:
    """Seconds that each request took, one after the other for about that long; one more before that does not count.

    Args:
        peer: started.
        requests: taken from `first` on, in a circle.
        first: also names the caches, so that no request finds another's.
        warm: have the prefix computed before.
        seconds: for all of them.
    """
    taken: list[float] = []
    began = time.perf_counter()
    for n in itertools.count(first):
        if len(taken) > FEWEST_REQUESTS and time.perf_counter() - began > seconds:
            break
        request = requests[n % len(requests)]
        salt = f"{os.getpid()}-{len(request.suffixes)}-{warm}-{n}"  # two peers may ask one server
        if warm:
            await peer.warm_prefix(request, salt)
        started = time.perf_counter()
        await peer.score(request, salt)
        taken.append(time.perf_counter() - started)
    return taken[1:]


def memory_mb() -> float:
    """Proportional share of memory of this process and all it started, in MB."""
    import psutil  # comes with vLLM

    own = psutil.Process(os.getpid())
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20
