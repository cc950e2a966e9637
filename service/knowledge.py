"""Opens the configured knowledge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.settings import SettingsError

if TYPE_CHECKING:
    from retrieval.live import LiveKnowledge
    from service.settings import Settings


def open_knowledge(settings: Settings) -> LiveKnowledge | None:
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
