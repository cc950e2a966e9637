"""Two judges over one base in a real vLLM, through the HTTP door."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio

from models.adapter import adapter_manifest, load_adapter
from models.canaries import canary_prompts
from models.engines.vllm import VllmEngine
from models.manifest import Manifest, save_manifest
from models.prompt import Item, PromptWriter
from models.tiers import judge, softmax
from models.tokenizer import FieldTokenizer
from service.fetch import Fetcher
from service.gateway import Gateway, assemble
from service.http.app import create_app
from service.pipeline import Judge
from service.settings import Settings

from .conftest import CHECKPOINT, START_SECONDS, Reference

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUERY = "usb c cable"
TITLES = ["USB-C cable, 2 m", "Ceramic tea mug", "USB-C to HDMI adapter", "Lightning cable, 1 m"]


def recorded(manifest: Manifest, writer: PromptWriter, reference: Reference) -> Manifest:
    """The manifest with its canaries as transformers answers them in float32."""
    prompts = [[*prefix, *suffix] for prefix, suffix in canary_prompts(manifest, writer)]
    rows = reference.label_logprobs_of(prompts).astype(np.float32)
    tiers = judge(rows, beta=manifest.beta, temperature=manifest.temperature).tiers
    canaries = [
        canary.model_copy(update={"tier": manifest.tiers[tier].name, "probabilities": tuple(row)})
        for canary, tier, row in zip(manifest.canaries, tiers, softmax(rows).tolist(), strict=True)
    ]
    return manifest.model_copy(update={"canaries": tuple(canaries)})


@pytest.fixture(scope="module")
def adapters(
    adapter: Path, manifest: Manifest, writer: PromptWriter, reference: Reference, adapted: Reference
) -> list[Manifest]:
    """The adapter as it is, and under a manifest that describes the base's answers."""
    toys = recorded(adapter_manifest(adapter, manifest, name="toys", beta=0.4), writer, adapted)
    save_manifest(toys, adapter)
    wrong = recorded(toys.model_copy(update={"name": "garden", "beta": manifest.beta}), writer, reference)
    return [load_adapter(adapter, manifest, name="toys"), wrong]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(
    engine: VllmEngine, manifest: Manifest, writer: PromptWriter, adapters: list[Manifest]
) -> AsyncIterator[Gateway]:
    """Three judges, two of them over the same weights."""
    tokenizer = FieldTokenizer(CHECKPOINT)
    judges = [Judge(one, tokenizer, PromptWriter(one, tokenizer), engine.adapter("toys", one)) for one in adapters]
    patient = {"probe_timeout_seconds": START_SECONDS, "probe_seconds": 3600, "retry_seconds": 3600}
    made = assemble(
        Settings(checkpoint=CHECKPOINT, deadline_ms=1000 * START_SECONDS, health=patient),
        Judge(manifest, tokenizer, writer, engine),
        Fetcher(None, 1.0),
        embedded=True,
        adapters=judges,
    )
    watch = asyncio.create_task(made.health.watch())
    async with asyncio.timeout(START_SECONDS):
        while not made.health.readiness().ok:
            assert not watch.done(), watch.exception()
            await asyncio.sleep(0.05)
    yield made  # not closed: its engine is everyone's
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def ask(gateway: Gateway, model: str | None) -> httpx.Response:
    """Score the titles by one judge."""
    body: dict[str, Any] = {"query": QUERY, "items": [{"id": t, "title": t} for t in TITLES], "context": "none"}
    transport = httpx.ASGITransport(create_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://tierwise", timeout=START_SECONDS) as client:
        return await client.post("/v1/score", content=json.dumps(body | ({"model": model} if model else {})))


def expected(writer: PromptWriter, reference: Reference, manifest: Manifest) -> dict[str, list[float]]:
    """Probabilities of each title, as transformers and the manifest's temperature give them."""
    prompt = writer.write(QUERY, None, [Item(title=title) for title in TITLES])
    rows = reference.label_logprobs_of([[*prompt.prefix.ids, *suffix.ids] for suffix in prompt.suffixes])
    judged = judge(rows.astype(np.float32), beta=manifest.beta, temperature=manifest.temperature)
    return dict(zip(TITLES, judged.probabilities.tolist(), strict=True))


async def test_judges_answer_for_themselves_and_keep_their_own_scores(
    gateway: Gateway, writer: PromptWriter, manifest: Manifest, reference: Reference, adapted: Reference
) -> None:
    """Base and adapter answer as their plain and merged weights do, first computed, then each from its own cache."""
    for cached in (0, len(TITLES)):
        for model, weights in ((None, reference), ("toys", adapted)):
            answer = (await ask(gateway, model)).raise_for_status().json()
            assert answer["model"] == (model or gateway.pipeline.judge.manifest.name)
            assert answer["usage"]["cached_items"] == cached
            for title, row in expected(writer, weights, manifest).items():
                (result,) = [result for result in answer["results"] if result["id"] == title]
                np.testing.assert_allclose(list(result["probabilities"].values()), row, atol=5e-3)
    plain, own = expected(writer, reference, manifest), expected(writer, adapted, manifest)
    assert max(abs(a - b) for t in TITLES for a, b in zip(plain[t], own[t], strict=True)) > 0.1


async def test_an_adapter_that_is_not_what_its_manifest_says_is_refused_alone(gateway: Gateway) -> None:
    """Its canaries come out as another judge's: 503 for it, with the pair; ready for the others."""
    refused = await ask(gateway, "garden")
    assert refused.status_code == 503
    assert "model 'garden': self-test: canary" in refused.json()["detail"]
    assert gateway.health.readiness().ok
    assert (await ask(gateway, "toys")).status_code == 200
