"""Reload and shadow where the judge runs on vLLM servers elsewhere: small real ones, on the real gateway."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from models.canaries import canary_prompts
from models.manifest import load_manifest, save_manifest
from models.prompt import PromptWriter
from models.tiers import judge, softmax
from models.tokenizer import FieldTokenizer
from service.gateway import open_gateway, open_trial
from service.http.app import create_app
from service.reload import reload
from service.settings import Settings, SettingsError
from tests.models.engines.vllm_server.conftest import Peer, folder, logprobs, manifest, peers
from tests.service.conftest import watched
from tests.service.test_shadow import counted, value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from models.manifest import Manifest
    from service.gateway import Gateway

__all__ = ["folder", "manifest", "peers"]  # fixtures

BODY: dict[str, Any] = {"query": "red disk", "items": [{"id": str(n), "title": f"case {n}"} for n in range(4)]}


def next_of(manifest: Manifest, folder: Path) -> Manifest:
    """The manifest of other weights: those of a peer whose answers are rotated by one."""
    tokenizer = FieldTokenizer(folder)
    prompts = canary_prompts(manifest, PromptWriter(manifest, tokenizer))
    found = np.array([np.roll(logprobs([*prefix, *suffix]), 1) for prefix, suffix in prompts], dtype=np.float32)
    tiers = judge(found, beta=manifest.beta).tiers
    canaries = [
        canary.model_copy(update={"tier": manifest.tiers[tier].name, "probabilities": tuple(row.tolist())})
        for canary, tier, row in zip(manifest.canaries, tiers, softmax(found), strict=True)
    ]
    return manifest.model_copy(update={"name": "next", "canaries": tuple(canaries)})


@asynccontextmanager
async def running(
    at: Path, servers: list[Peer], adapters: Mapping[str, Path] | None = None, **settings: Any
) -> AsyncIterator[Gateway]:
    """The gateway that these settings give, watched and ready."""
    vllm: Any = {"urls": [server.url for server in servers], "adapters": adapters or {}}
    gateway = open_gateway(Settings(checkpoint=at, engine="vllm-server", vllm=vllm, deadline_ms=60_000, **settings))
    async with watched(gateway):
        await gateway.health.tested.wait()
        yield gateway


async def ask(gateway: Gateway, **also: str) -> dict[str, Any]:
    """The answer to one request."""
    transport = httpx.ASGITransport(create_app(gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://tierwise") as client:
        answer: dict[str, Any] = (await client.post("/v1/score", json=BODY | also)).raise_for_status().json()
        return answer


async def test_another_threshold_is_taken_and_the_cache_stays(
    peers: list[Peer], folder: Path, manifest: Manifest
) -> None:
    """The servers are compared with the new manifest, and no item is sent to them again."""
    save_manifest(manifest, folder)
    async with running(folder, peers) as gateway:
        before = await ask(gateway)
        asked = sum(len(peer.scored) for peer in peers)
        save_manifest(manifest.model_copy(update={"beta": 0.6}), folder)
        found = await reload(gateway)
        after = await ask(gateway)
        assert found.checkpoint.outcome == "taken"
        assert sum(len(peer.scored) for peer in peers) == asked
        assert after["usage"]["cached_items"] == len(BODY["items"])
        assert after["versions"]["tiers"] == load_manifest(folder).tiers_id != before["versions"]["tiers"]


async def test_other_weights_are_taken_once_a_server_runs_them(
    peers: list[Peer], folder: Path, manifest: Manifest
) -> None:
    """Until then the reload is refused, naming what each server answers; afterwards only such servers are asked."""
    save_manifest(manifest, folder)
    async with running(folder, peers) as gateway:
        save_manifest(next_of(manifest, folder), folder)
        refused = await reload(gateway)
        before = await ask(gateway)
        new, *old = peers
        new.rotation, new.model = 1, "judge-8"  # restarted with them, under another name
        taken = await reload(gateway)
        asked = sum(len(peer.scored) for peer in old)
        after = await ask(gateway)
        assert sum(len(peer.scored) for peer in old) == asked
    assert (refused.checkpoint.outcome, taken.checkpoint.outcome) == ("refused", "taken")
    assert all(peer.url in refused.checkpoint.detail for peer in peers)
    assert before["model"] == "test"
    assert after["model"] == "next"
    assert after["usage"]["cached_items"] == 0


async def test_a_candidate_on_servers_of_its_own_is_shadowed(
    peers: list[Peer], folder: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It judges what the live pool judged, and the metrics say how they differ."""
    save_manifest(manifest, folder)
    other = tmp_path_factory.mktemp("next")
    (other / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    save_manifest(next_of(manifest, folder), other)
    *live, candidate = peers
    candidate.rotation = 1
    shadow = {"checkpoint": other, "urls": [candidate.url], "share": 1.0}
    async with running(folder, live, shadow=shadow) as gateway:
        await asyncio.sleep(0.2)  # the candidate's canaries
        await ask(gateway)
        await counted(gateway, 1, "compared")
        assert value(gateway, "tierwise_shadow_items_total") == len(BODY["items"])
        assert value(gateway, "tierwise_shadow_items_total", outcome="same") < len(BODY["items"])


def test_a_candidate_needs_a_place(folder: Path, manifest: Manifest) -> None:
    """The live servers' only model is the live one; with other engines there are no servers to name."""
    save_manifest(manifest, folder)
    chosen: dict[str, Any] = {"engine": "vllm-server", "vllm": {"urls": ["http://127.0.0.1:1"]}}
    with pytest.raises(SettingsError, match=r"shadow\.urls"):
        open_trial(Settings(checkpoint=folder, shadow={"checkpoint": folder}, **chosen))
    with pytest.raises(SettingsError, match="vllm-server"):
        open_trial(Settings(checkpoint=folder, shadow={"checkpoint": folder, "model": "next"}))
    with pytest.raises(ValueError, match="they need checkpoint"):
        Settings(shadow={"model": "next"})
