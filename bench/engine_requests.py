"""The thousand committed pairs as engine requests, and one way of timing any peer on them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import psutil

from models.manifest import load_manifest
from models.prompt import Item, PromptWriter
from models.tokenizer import FieldTokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

PAIRS = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "pairs.jsonl"
WARM_UP = 2
MOST_REQUESTS = 300  # per cell; more says nothing new
FEWEST_REQUESTS = 5
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
    """What one peer did at one size. Times in milliseconds per request; `low` and `high` bound items/s at 95 %."""

    items: int
    prefix: str
    requests: int
    items_per_s: float
    low: float
    high: float
    p50_ms: float
    p99_ms: float


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
    groups: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for line in PAIRS.read_text().splitlines():
        row = json.loads(line)
        groups.setdefault((row["query"], row["chunk"]), []).append(row["item"])
    requests = []
    for (query, chunk), rows in groups.items():
        for start in range(0, len(rows) - items + 1, items):
            chosen = [_item(row) for row in rows[start : start + items]]
            prompt = writer.write(query, chunk, chosen)
            texts = tuple(f"{i.title} {i.brand} {i.attributes} {i.description}" for i in chosen)
            asked = f"{query} {chunk}" if chunk else query
            requests.append(Request(prompt.prefix.ids, tuple(s.ids for s in prompt.suffixes), asked, texts))
    order = np.random.default_rng(3).permutation(len(requests))
    return [requests[n] for n in order]


def _item(row: dict[str, Any]) -> Item:
    attributes = ", ".join(f"{name} {value}" for name, value in row.get("attributes", {}).items())
    return Item(
        title=row["title"],
        brand=row.get("brand", ""),
        category=row.get("category", ""),
        attributes=attributes,
        description=row.get("description", ""),
    )


async def measure(peer: Peer, requests: Sequence[Request], *, warm: bool, seconds: float) -> Cell:
    """One request after the other for about that long, after two that do not count."""
    items = len(requests[0].suffixes)
    taken: list[float] = []
    began = time.perf_counter()
    for n in range(MOST_REQUESTS + WARM_UP):
        if len(taken) >= FEWEST_REQUESTS and time.perf_counter() - began > seconds:
            break
        request = requests[n % len(requests)]
        salt = f"{items}-{warm}-{n}"
        if warm:
            await peer.warm_prefix(request, salt)
        started = time.perf_counter()
        await peer.score(request, salt)
        if n >= WARM_UP:
            taken.append(time.perf_counter() - started)
    times = np.array(taken)
    resampled = np.random.default_rng(0).choice(times, (RESAMPLES, len(times))).mean(axis=1)
    low, high = np.quantile(items / resampled, [0.025, 0.975])
    p50, p99 = np.quantile(times * 1000, [0.5, 0.99])
    return Cell(
        items=items,
        prefix="warm" if warm else "cold",
        requests=len(times),
        items_per_s=float(items / times.mean()),
        low=float(low),
        high=float(high),
        p50_ms=float(p50),
        p99_ms=float(p99),
    )


def memory_mb() -> float:
    """Proportional share of memory of this process and all it started, in MB."""
    own = psutil.Process(os.getpid())
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


async def run(peer: Peer, checkpoint: Path, sizes: Sequence[int], seconds: float) -> dict[str, Any]:
    """Start a peer, measure every size cold and warm, check that it computes the same thing, stop it."""
    started = time.perf_counter()
    await peer.start()
    ready = time.perf_counter() - started
    sample = load_requests(checkpoint, 8)[0]
    answer = await peer.score(sample, "sample")
    cells = [
        asdict(await measure(peer, load_requests(checkpoint, items), warm=warm, seconds=seconds))
        for items in sizes
        for warm in (False, True)
    ]
    memory = memory_mb()
    await peer.stop()
    return {"ready_s": ready, "memory_mb": memory, "cells": cells, "sample": np.asarray(answer).tolist()}
