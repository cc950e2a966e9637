"""Adapters on vLLM servers elsewhere, from settings to answers: small real servers, the real gateway."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.adapter import FILES, adapter_manifest
from models.errors import CheckpointError
from models.manifest import Manifest, save_manifest
from service.errors import NotReadyError
from service.gateway import open_judge, open_judges
from service.reload import reload
from service.settings import Settings, SettingsError
from tests.models.engines.vllm_server.conftest import Peer, eventually, folder, manifest, peers, turned_canaries
from tests.service.test_reload_pool import ask, running

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["folder", "manifest", "peers"]  # fixtures


@pytest.fixture
def toys(folder: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter that says what the base says, one tier further down."""
    save_manifest(manifest, folder)
    made = tmp_path_factory.mktemp("toys")
    for name in FILES:
        (made / name).write_text(name)
    save_manifest(adapter_manifest(made, manifest, name="toys", canaries=turned_canaries(manifest)), made)
    return made


def settings_for(folder: Path, **adapters: Path) -> Settings:
    """Of a gateway on servers that need not be there."""
    vllm: dict[str, Any] = {"urls": ["http://127.0.0.1:1"], "adapters": adapters}
    return Settings(checkpoint=folder, engine="vllm-server", vllm=vllm)


async def test_a_judge_on_the_servers_is_asked_by_name(peers: list[Peer], folder: Path, toys: Path) -> None:
    """Base and adapter give their own scores, and their own again from the cache; no server is asked twice."""
    for peer in peers:
        peer.adapters["toys"] = 1
    async with running(folder, peers, adapters={"toys": toys}) as gateway:
        await eventually(lambda: gateway.health.readiness().ok)
        plain, own = await ask(gateway), await ask(gateway, model="toys")
        asked = sorted(body["model"] for peer in peers for body in peer.scored)
        again = await ask(gateway), await ask(gateway, model="toys")
        assert asked == sorted(body["model"] for peer in peers for body in peer.scored) == ["judge", "toys"]
    assert (plain["model"], own["model"]) == ("test", "toys")
    assert [answer["results"] for answer in again] == [plain["results"], own["results"]]
    rows = {result["id"]: list(result["probabilities"].values()) for result in plain["results"]}
    for result in own["results"]:
        np.testing.assert_allclose(list(result["probabilities"].values()), np.roll(rows[result["id"]], 1), atol=1e-5)


async def test_servers_that_lack_an_adapter_serve_the_others(peers: list[Peer], folder: Path, toys: Path) -> None:
    """503 for the judge that they do not have, until one of them has it."""
    async with running(folder, peers[:1], adapters={"toys": toys}, health={"retry_seconds": 0.02}) as gateway:
        await eventually(lambda: gateway.health.readiness().ok)
        assert (await ask(gateway))["model"] == "test"
        with pytest.raises(NotReadyError, match=r"model 'toys': self-test: .*serves the models \['judge'\], not toys"):
            gateway.serving("toys")
        peers[0].adapters["toys"] = 1
        await eventually(lambda: all(judge.ok for judge in gateway.health.readiness().judges))
        assert (await ask(gateway, model="toys"))["model"] == "toys"


async def test_a_new_checkpoint_under_adapters_is_refused(
    peers: list[Peer], folder: Path, toys: Path, manifest: Manifest
) -> None:
    """They lie over the one in force; the answer says what to do instead, and all goes on."""
    for peer in peers:
        peer.adapters["toys"] = 1
    async with running(folder, peers, adapters={"toys": toys}) as gateway:
        await eventually(lambda: gateway.health.readiness().ok)
        save_manifest(manifest.model_copy(update={"beta": 0.6}), folder)
        found = await reload(gateway)
        assert found.checkpoint.outcome == "refused"
        assert "together with its adapters" in found.checkpoint.detail
        assert (await ask(gateway, model="toys"))["model"] == "toys"


def test_an_adapter_that_is_another_one_stops_the_start(folder: Path, toys: Path, manifest: Manifest) -> None:
    """Before any server is asked; an embedded engine that has no adapters says so."""
    assert [judge.manifest.name for judge in open_judges(settings_for(folder, toys=toys))] == ["test", "toys"]
    with pytest.raises(CheckpointError, match=r"adapter garden: .* it is called 'toys'"):
        open_judges(settings_for(folder, garden=toys))
    with pytest.raises(SettingsError, match="'test' is the checkpoint's own name"):
        open_judges(settings_for(folder, test=toys))
    save_manifest(manifest.model_copy(update={"beta": 0.6, "files": {"tokenizer.json": "0"}}), folder)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        open_judges(settings_for(folder, toys=toys))
    with pytest.raises(SettingsError, match=r"vllm\.adapters .* onnx-int8 serves the checkpoint alone"):
        open_judge(Settings(vllm={"adapters": {"toys": toys}}))


def test_an_adapter_is_no_checkpoint(folder: Path, toys: Path, manifest: Manifest) -> None:
    """A folder that names a base cannot be served alone."""
    described = json.loads((toys / "tierwise.json").read_text())
    save_manifest(manifest.model_copy(update={"base": described["base"]}), folder)
    with pytest.raises(CheckpointError, match=r"name it in vllm\.adapters"):
        open_judge(settings_for(folder))
