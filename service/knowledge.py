"""Opens the configured knowledge, and takes over new snapshots while it is in use."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from service.fetch import Knowledge, Source
from service.settings import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval.live import Refused
    from service.settings import Settings

log = logging.getLogger(__name__)


class Snapshot(Knowledge, Protocol):
    """Knowledge from a folder."""

    @property
    def built_at(self) -> float:
        """When it was made, in seconds since the epoch."""
        ...


class Live(Source, Protocol):
    """Knowledge that looks for a new snapshot when asked to."""

    @property
    def current(self) -> Snapshot | None:
        """The snapshot in force."""
        ...

    @property
    def checked_at(self) -> float:
        """When a look last found the newest snapshot in force, in seconds since the epoch; 0 for never."""
        ...

    @property
    def refused(self) -> Refused | None:
        """The latest snapshot that was refused, and why."""
        ...

    def refresh(self) -> bool:
        """Load the snapshot in force if it is another one; true when it was taken. Blocks."""
        ...


def open_knowledge(settings: Settings) -> Live | None:
    """Knowledge with a snapshot in force, or None when none is configured. Hashes every file of the snapshot.

    Raises:
        SettingsError: the snapshot is missing, changed or truncated; the message names the file.
    """
    if settings.knowledge is None:
        return None
    return _open("knowledge", settings.knowledge, settings.tau)


def open_tenants(settings: Settings) -> dict[str, Live]:
    """The knowledge of every tenant that has its own, by tenant.

    Raises:
        SettingsError: as for `open_knowledge`; the message names the tenant.
    """
    return {
        tenant: _open(f"tenants.{tenant}.knowledge", own.knowledge, own.tau) for tenant, own in settings.tenants.items()
    }


def _open(name: str, folder: Path, tau: float | None) -> Live:
    from retrieval.live import LiveKnowledge  # noqa: PLC0415 # FAISS loads only where there is knowledge

    live = LiveKnowledge(folder, tau)
    live.refresh()
    if live.current is None:
        reason = live.refused.reason if live.refused else "it holds no snapshot"
        variable = "TIERWISE_" + name.partition(".")[0].upper()
        raise SettingsError(f"{name} ({variable}): {reason}")
    return live


async def follow(name: str, live: Live, seconds: float) -> None:
    """Look for a new snapshot every so many seconds, until cancelled. Whatever fails, the last good one stays.

    `name` is the setting that holds the folder; log lines begin with it.
    """
    told = None
    while True:
        await asyncio.sleep(seconds)
        try:
            taken = await asyncio.to_thread(live.refresh)
        except Exception:  # an unreadable folder must not end the service that has good knowledge
            log.exception("%s: cannot look for a new snapshot", name)
            continue
        if taken:
            log.info("%s: took over version %s", name, live.current.version if live.current else None)
        refused = live.refused
        if refused and refused != told:
            log.error("%s: refused %s: %s", name, refused.name, refused.reason)
        told = refused
