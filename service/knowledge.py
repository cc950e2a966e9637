"""Opens the configured knowledge snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.fetch import Knowledge
    from service.settings import Settings


def open_knowledge(settings: Settings) -> Knowledge | None:
    """The live knowledge, or None when none is configured.

    Raises:
        RetrievalError: the snapshot is missing, changed or truncated; the message names the file.
    """
    if settings.knowledge is None:
        return None
    from retrieval.knowledge import KnowledgeBase  # noqa: PLC0415 # FAISS loads only where there is knowledge

    return KnowledgeBase.open(settings.knowledge, tau=settings.tau)
