"""Taking over new knowledge while the service runs."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from retrieval.live import Refused
from service.commands.index import run_build
from service.knowledge import follow, open_knowledge, open_tenants
from service.settings import Settings, SettingsError, load_settings
from tests.service.conftest import FakeKnowledge

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class FakeLive:
    """Knowledge whose refreshes go by a script: a version taken, a refusal, or an error."""

    script: list[str]
    current: FakeKnowledge = field(default_factory=FakeKnowledge)
    refused: Refused | None = None
    checked_at: float = 0.0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def refresh(self) -> bool:
        """One step of the script."""
        step = self.script.pop(0) if self.script else "end"
        self.refused = Refused("v9", "chunks.jsonl is truncated") if step == "refuse" else None
        if step == "error":
            raise OSError("stale file handle")
        if step == "take":
            self.current = FakeKnowledge(version="index-2")
        return step == "take"


async def test_new_snapshots_are_taken_and_bad_ones_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Every look may swap, refuse or fail; the service goes on, and a refusal that lasts is logged once."""
    live = FakeLive(["error", "refuse", "refuse", "take", "none"])
    with caplog.at_level(logging.INFO, "service.knowledge"):
        task = asyncio.create_task(follow("knowledge", live, 0.0))
        while live.script:  # noqa: ASYNC110 # the script is what ends it
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == [
        "knowledge: cannot look for a new snapshot",
        "knowledge: refused v9: chunks.jsonl is truncated",
        "knowledge: took over version index-2",
    ]


def test_every_tenant_opens_its_own_snapshot(checkpoint: Path, tmp_path: Path) -> None:
    """With its own gate; a folder without a snapshot stops the start under the tenant's name."""
    for tenant in ("a", "b"):
        documents = tmp_path / f"{tenant}.jsonl"
        documents.write_text(json.dumps({"id": tenant, "source": "cards", "text": f"about {tenant}"}))
        run_build(documents, tmp_path / tenant, checkpoint=checkpoint, keep=1)
    live = open_tenants(
        load_settings(
            checkpoint=checkpoint,
            tenants={"a": {"knowledge": tmp_path / "a", "tau": 0.5}, "b": {"knowledge": tmp_path / "b"}},
        )
    )
    a, b = live["a"].current, live["b"].current
    assert a is not None
    assert b is not None
    assert a.version != b.version
    assert a.tau == 0.5
    missing = load_settings(checkpoint=checkpoint, tenants={"c": {"knowledge": tmp_path / "none"}})
    with pytest.raises(SettingsError, match=r"tenants\.c\.knowledge \(TIERWISE_TENANTS\)"):
        open_tenants(missing)


def test_a_folder_without_a_snapshot_stops_the_start(checkpoint: Path, tmp_path: Path) -> None:
    """The setting and the reason are named."""
    with pytest.raises(SettingsError, match="TIERWISE_KNOWLEDGE"):
        open_knowledge(Settings(checkpoint=checkpoint, knowledge=tmp_path))
