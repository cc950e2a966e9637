"""Several judges over one fake base: the checkpoint's own, one with the tiers turned round, one with two tiers."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import httpx

from models.engines.port import Scores
from models.tiers import softmax
from service.fetch import Fetcher
from service.gateway import Gateway, assemble
from service.http.app import create_app
from service.settings import Settings
from tests.service.conftest import OverlapEngine, judge_on, watched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from models.deadline import Deadline
    from models.manifest import Manifest
    from service.pipeline import Judge
    from service.shadow import Trial

TURNED, PAIR = "turned", "pair"
# Probes by hand only, but for those that wait for an engine.
QUIET: dict[str, Any] = {"probe_seconds": 3600, "retry_seconds": 0.02, "recoveries": 1}


class AdapterEngine(OverlapEngine):
    """The fake engine's first `tiers` columns, turned round while `turned`."""

    tiers: int = 4
    turned: bool = False

    async def score(
        self, prefix: Sequence[int], suffixes: Sequence[Sequence[int]], deadline: Deadline, *, scope: str = ""
    ) -> Scores:
        """The answers of the fake engine as this adapter has them."""
        scores = await super().score(prefix, suffixes, deadline, scope=scope)
        columns = scores.logprobs[:, ::-1] if self.turned else scores.logprobs
        return Scores(columns[:, -self.tiers :].copy(), scores.status)


@dataclass
class Served:
    """A gateway of three judges with a client in front of it."""

    gateway: Gateway
    client: httpx.AsyncClient
    base: OverlapEngine
    turned: AdapterEngine
    pair: AdapterEngine

    async def ask(self, model: str | None = None, *titles: str, path: str = "/v1/score") -> httpx.Response:
        """Score titles, or the canaries', by one judge."""
        items = [{"id": str(n), "title": title} for n, title in enumerate(titles or ("abcd", "wxyz"))]
        body: dict[str, Any] = {"query": "abcd", "items": items} | ({} if model is None else {"model": model})
        if path == "/v1/explain":
            body["item"] = body.pop("items")[0]
        if path.endswith("rerank"):
            body["documents"] = [item["title"] for item in body.pop("items")]
        return await self.client.post(path, content=json.dumps(body))


def adapter_on(base: Judge, name: str, engine: OverlapEngine, rows: Sequence[Sequence[float]], **own: Any) -> Judge:
    """A judge of its own over the base's prompt, whose canaries are recorded as these probabilities."""
    tiers = own.get("tiers", base.manifest.tiers)
    canaries = tuple(
        canary.model_copy(
            update={
                "tier": tiers[max(range(len(row)), key=lambda n, row=row: row[n])].name,  # type: ignore[misc]
                "probabilities": tuple(row),
            }
        )
        for canary, row in zip(base.manifest.canaries, rows, strict=True)
    )
    files = {"adapter_model.safetensors": name}
    update = {"name": name, "base": base.manifest.checkpoint_id, "canaries": canaries, "files": files}
    manifest: Manifest = base.manifest.model_copy(update=update | own)
    return replace(base, manifest=manifest, engine=engine)


def judges_on(checkpoint: Path) -> tuple[Judge, list[Judge]]:
    """The checkpoint's judge and two adapters."""
    base = judge_on(checkpoint, OverlapEngine())
    turned, pair = AdapterEngine(name="overlap+turned"), AdapterEngine(name="overlap+pair")
    turned.turned, pair.tiers = True, 2
    best = softmax(OverlapEngine._row(range(20, 24), range(20, 24))[None])[0].tolist()
    worst = softmax(OverlapEngine._row(range(20, 24), range(30, 34))[None])[0].tolist()
    two = [[low / (low + lower), lower / (low + lower)] for _, _, low, lower in (best, worst)]
    tiers = base.manifest.tiers
    renamed = tuple(tier.model_copy(update={"name": f"{tier.name}!", "label": f"{tier.label}!"}) for tier in tiers[2:])
    return base, [
        adapter_on(base, TURNED, turned, [best[::-1], worst[::-1]]),
        adapter_on(base, PAIR, pair, two, tiers=renamed, beta=0.7),
    ]


@asynccontextmanager
async def served(checkpoint: Path, trial: Trial | None = None, **settings: Any) -> AsyncIterator[Served]:
    """The three judges behind the HTTP door, all tested; probes after that by hand."""
    chosen: dict[str, Any] = {"deadline_ms": 60_000, "health": QUIET, **settings}
    base, adapters = judges_on(checkpoint)
    configured = Settings(checkpoint=checkpoint, **chosen)
    gateway = assemble(configured, base, Fetcher(None, 1.0), embedded=True, adapters=adapters, trial=trial)
    async with watched(gateway):
        async with asyncio.timeout(20):
            async for ready in gateway.health.changes():
                if ready:
                    break
        engines: list[Any] = [judge.engine for judge in (base, *adapters)]
        for engine in engines:
            engine.calls.clear()
        transport = httpx.ASGITransport(create_app(gateway))
        async with httpx.AsyncClient(transport=transport, base_url="http://tierwise") as client:
            yield Served(gateway, client, *engines)
