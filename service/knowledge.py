"""Opens the configured knowledge, and takes over new snapshots while it is in use."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from service.fetch import Source
from service.settings import SettingsError

if TYPE_CHECKING:
    from retrieval.live import Refused
    from service.settings import Settings

log = logging.getLogger(__name__)


class Live(Source, Protocol):
    """Knowledge that looks for a new snapshot when asked to."""

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
    from retrieval.live import LiveKnowledge  # noqa: PLC0415 # FAISS loads only where there is knowledge

    live = LiveKnowledge(settings.knowledge, settings.tau)
    live.refresh()
    if live.current is None:
        reason = live.refused.reason if live.refused else "it holds no snapshot"
        raise SettingsError(f"knowledge (TIERWISE_KNOWLEDGE): {reason}")
    return live


async def follow(live: Live, seconds: float) -> None:
    """Look for a new snapshot every so many seconds, until cancelled. Whatever fails, the last good one stays."""
    told = None
    while True:
        await asyncio.sleep(seconds)
        try:
            taken = await asyncio.to_thread(live.refresh)
        except Exception:  # an unreadable folder must not end the service that has good knowledge
            log.exception("knowledge: cannot look for a new snapshot")
            continue
        if taken:
            log.info("knowledge: took over version %s", live.current.version if live.current else None)
        refused = live.refused
        if refused and refused != told:
            log.error("knowledge: refused %s: %s", refused.name, refused.reason)
        told = refused
