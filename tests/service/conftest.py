"""A tiny checkpoint, and an engine at the port that is a pure function of the ids."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from models.engines.port import EngineHealth, ItemStatus, Scores
from models.errors import EngineUnavailableError
from models.manifest import (
    Canary,
    CanaryItem,
    Manifest,
    PromptTemplate,
    RationaleMarkers,
    Segment,
    Tier,
    file_hash,
    load_manifest,
    save_manifest,
)
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer
from service.fetch import Fetcher
from service.gateway import Gateway, assemble
from service.http.app import create_app
from service.pipeline import Judge
from service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from models.deadline import Deadline

TIERS = ("4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant")
BANDS = ("Good", "Good", "Mid", "Bad")
LABELS = ("excellent", "related", "mismatch", "irrelevant")
MARKERS = ("[category]", "[attributes]", "[context]", "[reason]")
WORDS = ("match", "brand", "ok", "adopt", "same")
SPECIAL = (
    "[UNK]",
    "[END]",
    "[QUERY]",
    "[CHUNK]",
    "[TITLE]",
    "[MORE]",
    "[ANSWER]",
    *(f"[{x}]" for x in LABELS),
    *MARKERS,
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder whose vocabulary is the printable ASCII characters."""
    folder = tmp_path_factory.mktemp("checkpoint")
    vocabulary = {token: n for n, token in enumerate((*SPECIAL, *(chr(c) for c in range(33, 127)), *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 # a token of text
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    prompt = PromptTemplate(
        prefix=(Segment(text="[QUERY]", field="query"), Segment(text="[CHUNK]", field="chunk")),
        suffix=(
            Segment(text="[TITLE]", field="title"),
            Segment(text="[MORE]", field="brand"),
            Segment(text="[MORE]", field="category"),
            Segment(text="[MORE]", field="attributes"),
            Segment(text="[MORE]", field="description"),
            Segment(text="[ANSWER]"),
        ),
        budgets={
            "query": 64,
            "chunk": 64,
            "title": 48,
            "brand": 16,
            "category": 16,
            "attributes": 32,
            "description": 32,
        },
    )
    manifest = Manifest(
        name="tiny",
        tiers=tuple(
            Tier(name=n, label=x, token_id=vocabulary[f"[{x}]"], band=b)
            for n, x, b in zip(TIERS, LABELS, BANDS, strict=True)
        ),
        prompt=prompt,
        prompt_hash=prompt.hash,
        max_tokens=512,
        beta=0.5,
        rationale=RationaleMarkers(
            category=MARKERS[0],
            attributes=MARKERS[1],
            context=MARKERS[2],
            reason=MARKERS[3],
            end_token_id=vocabulary["[END]"],
        ),
        canaries=(
            Canary(query="abcd", item=CanaryItem(title="abcd"), tier="4-Excellent"),
            Canary(query="abcd", item=CanaryItem(title="wxyz"), tier="1-Irrelevant"),
        ),
        files={"tokenizer.json": file_hash(folder / "tokenizer.json")},
    )
    save_manifest(manifest, folder)
    return folder


@dataclass
class OverlapEngine:
    """Scores by the share of the prefix's ids that the suffix holds too. Faults are chosen per instance.

    Attributes:
        expired: positions that come back expired.
        failed: positions that come back failed.
        raises: raised instead of an answer.
        hang: never answers while set.
        hold: answers once it is set.
        dies_after: answers this many calls, then is unavailable.
        rationale: ids that `explain` yields.
        scopes: of the calls.
        armed: whether the faults are on; the door opens with them off, so that the self-test passes.
    """

    expired: frozenset[int] = frozenset()
    failed: frozenset[int] = frozenset()
    raises: Exception | None = None
    hang: bool = False
    hold: asyncio.Event | None = None
    dies_after: float = float("inf")
    rationale: tuple[int, ...] = ()
    armed: bool = True
    alive: bool = True
    queued_tokens: int = 0
    steps: int = 0
    calls: list[tuple[tuple[int, ...], list[tuple[int, ...]]]] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    name: str = "overlap"
    closed: bool = False

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """One row per suffix; faults as configured."""
        self.scopes.append(scope)
        if len(self.calls) >= self.dies_after:
            raise EngineUnavailableError("died")
        self.calls.append((tuple(prefix), [tuple(s) for s in suffixes]))
        if self.armed and self.raises is not None:
            raise self.raises
        if self.armed and self.hold is not None:
            await self.hold.wait()
        if self.armed and self.hang:
            await asyncio.Event().wait()
        logprobs = np.stack([self._row(prefix, s) for s in suffixes])
        status = []
        for n in range(len(suffixes)):
            late = (self.armed and n in self.expired) or deadline.expired
            failed = self.armed and n in self.failed
            status.append(ItemStatus.EXPIRED if late else ItemStatus.FAILED if failed else ItemStatus.OK)
        logprobs[[s is not ItemStatus.OK for s in status]] = np.nan
        self.steps += 1
        return Scores(logprobs=logprobs, status=tuple(status))

    @staticmethod
    def _row(prefix: Sequence[int], suffix: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        query = set(prefix) - set(range(len(SPECIAL)))
        share = len(query & set(suffix)) / max(1, len(query))
        logits = -8.0 * np.abs(np.linspace(1.0, 0.0, len(TIERS)) - share)
        row: np.ndarray[tuple[int], np.dtype[np.float32]] = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
        return row

    async def explain(
        self,
        prefix: Sequence[int],
        suffix: Sequence[int],
        deadline: Deadline,
        *,
        label: int,
        max_tokens: int,
        scope: str = "",
    ) -> AsyncIterator[int]:
        """The configured ids."""
        del prefix, suffix, deadline, label, scope
        for token in self.rationale[:max_tokens]:
            yield token

    async def warm_up(self) -> None:
        """Nothing to load."""
        if self.armed and self.raises is not None:
            raise self.raises

    def health(self) -> EngineHealth:
        """As configured."""
        detail = "makes progress" if self.alive else "the compute thread died"
        return EngineHealth(self.alive, detail, self.queued_tokens, self.steps)

    async def close(self) -> None:
        """Remember it."""
        self.closed = True


def judge_on(checkpoint: Path, engine: OverlapEngine) -> Judge:
    manifest = load_manifest(checkpoint)
    tokenizer = FieldTokenizer(checkpoint)
    return Judge(manifest, tokenizer, PromptWriter(manifest, tokenizer), engine)


@dataclass(frozen=True)
class FakeHit:
    """A chunk."""

    chunk_id: str = "card-1"
    source: str = "cards"
    text: str = "a helpful chunk"
    score: float = 0.75


@dataclass
class FakeKnowledge:
    """Knowledge at the port: one answer for every query, or a fault."""

    hit: FakeHit | None = field(default_factory=FakeHit)
    raises: Exception | None = None
    wait: Callable[[], object] | None = None
    version: str = "index-1"
    tau: float = 0.5
    built_at: float = 0.0

    @property
    def current(self) -> FakeKnowledge:
        """Itself: the only snapshot there is."""
        return self

    def search(self, query: str, timings_ms: dict[str, float] | None = None) -> FakeHit | None:
        """The configured answer."""
        del query
        if timings_ms is not None:
            timings_ms |= {"embed": 0.25, "search": 0.5}
        if self.wait is not None:
            self.wait()
        if self.raises is not None:
            raise self.raises
        return self.hit


@dataclass
class Door:
    """A running app with a client in front of it."""

    client: httpx.AsyncClient
    gateway: Gateway
    engine: OverlapEngine

    async def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        """Post a body as JSON."""
        return await self.client.post(path, content=json.dumps(body), headers=headers)


@asynccontextmanager
async def watched(gateway: Gateway) -> AsyncIterator[Gateway]:
    """A gateway whose watch runs, and its shadow if there is one; closed at the end."""
    tasks = [asyncio.create_task(gateway.health.watch())]
    if gateway.shadow is not None:
        tasks.append(asyncio.create_task(gateway.shadow.run()))
    try:
        yield gateway
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.close()


@pytest.fixture
def open_door(checkpoint: Path) -> Callable[..., AbstractAsyncContextManager[Door]]:
    """Open the HTTP door around the fake engine; settings by keyword."""

    @asynccontextmanager
    async def open_(
        engine: OverlapEngine | None = None,
        knowledge: FakeKnowledge | None = None,
        own: Mapping[str, FakeKnowledge] | None = None,
        at: Path = checkpoint,
        engine_: str = "onnx-int8",  # what the settings say it is
        **settings: object,
    ) -> AsyncIterator[Door]:
        engine = engine or OverlapEngine()
        configured = Settings(checkpoint=at, engine=engine_, **settings)  # type: ignore[arg-type] # validated
        budget = configured.retrieval_budget_ms
        fetcher = Fetcher(knowledge, budget, {t: Fetcher(k, budget) for t, k in (own or {}).items()})
        gateway = assemble(configured, judge_on(at, engine), fetcher, embedded=True)
        engine.armed = False
        async with watched(gateway):
            await gateway.health.tested.wait()
            engine.armed = True
            engine.calls.clear()
            engine.scopes.clear()
            transport = httpx.ASGITransport(create_app(gateway))
            async with httpx.AsyncClient(transport=transport, base_url="http://tierwise") as client:
                yield Door(client, gateway, engine)

    return open_


@pytest.fixture
async def door(open_door: Callable[..., AbstractAsyncContextManager[Door]]) -> AsyncIterator[Door]:
    """The door with default settings."""
    async with open_door() as opened:
        yield opened
