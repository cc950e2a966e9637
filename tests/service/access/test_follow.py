"""Following files."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.access.follow import follow

if TYPE_CHECKING:
    import pytest


async def test_looking_goes_on_whatever_fails(caplog: pytest.LogCaptureFixture) -> None:
    """One look that fails is logged; the next one comes all the same."""
    looks = asyncio.Event()
    seen: list[int] = []
    loop = asyncio.get_running_loop()

    def refresh() -> None:
        seen.append(len(seen))
        if len(seen) == 1:
            raise OSError("stale file handle")
        loop.call_soon_threadsafe(looks.set)

    task = asyncio.create_task(follow(refresh, 0.001))
    await asyncio.wait_for(looks.wait(), 10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == ["cannot look for a change"]
