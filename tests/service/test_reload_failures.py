"""Reloads that fail: what serves goes on, whatever fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from models.manifest import file_hash, load_manifest, save_manifest
from service.http.admin import create_admin
from service.reload import follow_checkpoint, reload
from tests.service.conftest import OverlapEngine
from tests.service.test_knowledge import FakeLive
from tests.service.test_reload import BODY, change, door, folder, opening

if TYPE_CHECKING:
    from pathlib import Path

    from service.pipeline import Judge
    from service.settings import Settings
    from tests.service.conftest import Door

__all__ = ["door", "folder"]  # fixtures


async def test_a_damaged_checkpoint_is_refused(door: Door, folder: Path) -> None:
    """A file that is not what the manifest says is named."""
    change(folder, beta=0.25)
    (folder / "tokenizer.json").write_text("{}")
    found = await reload(door.gateway, opening(OverlapEngine()))
    assert found.checkpoint.outcome == "refused"
    assert "tokenizer.json" in found.checkpoint.detail


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Exception("expected value at line 1")])
async def test_whatever_fails_in_opening_a_checkpoint_refuses_it(
    door: Door, folder: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of the disk and of libraries too, before there is an engine and after; the log tells where from."""

    def fail(_: Settings) -> Judge:
        raise error

    change(folder, name="next")
    engine = OverlapEngine(raises=error)
    for open_ in (fail, opening(engine)):
        found = await reload(door.gateway, open_)
        assert found.checkpoint.outcome == "refused"
        assert str(error) in found.checkpoint.detail
        assert "Traceback" in caplog.text
        caplog.clear()
    assert engine.closed
    assert door.gateway.refused
    assert (await door.post("/v1/score", BODY)).status_code == 200


async def test_the_admin_door_refuses_a_bad_tokenizer(door: Door, folder: Path) -> None:
    """409 for a file that is what the manifest says and that its library cannot read."""
    before = load_manifest(folder)
    (folder / "tokenizer.json").write_text("{}")
    after = before.model_copy(update={"files": {"tokenizer.json": file_hash(folder / "tokenizer.json")}})
    save_manifest(after, folder)
    transport = httpx.ASGITransport(create_admin(door.gateway))
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        answer = await client.post("/admin/reload")
    assert (answer.status_code, answer.json()["checkpoint"]["outcome"]) == (409, "refused")


async def test_following_outlives_a_look_that_fails(
    door: Door, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would take the process with it; the next look comes."""
    looks: list[Settings] = []

    def stamp(settings: Settings) -> tuple[int, ...]:
        looks.append(settings)
        if len(looks) == 2:
            raise RuntimeError("the folder is gone")
        return len(looks), 0, 0, 0

    monkeypatch.setattr("service.reload._stamp", stamp)
    change(folder, name="next")
    watch = asyncio.create_task(follow_checkpoint(door.gateway, 0.01, opening(OverlapEngine())))
    async with asyncio.timeout(30):
        while door.gateway.pipeline.judge.manifest.name != "next":  # noqa: ASYNC110 # the fake sets no event
            await asyncio.sleep(0.01)
    watch.cancel()
    assert "the folder is gone" in caplog.text


async def test_knowledge_that_fails_in_any_way_is_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What libraries raise over a damaged index too."""

    def fail(_: FakeLive) -> bool:
        raise RuntimeError("index type not recognized")

    monkeypatch.setattr(FakeLive, "refresh", fail)
    door.gateway.knowledge = {"knowledge": FakeLive([])}
    found = (await reload(door.gateway)).knowledge["knowledge"]
    assert found.outcome == "refused"
    assert "not recognized" in found.detail
