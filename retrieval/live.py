"""Knowledge that changes under a running service: load beside, check, swap, keep the old one until its readers end.

A reader takes `current` once per request and uses that object to the end. The swap is one assignment; the old snapshot
is closed by its last reference, so no lock is on the request's path.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval.errors import KnowledgeError
from retrieval.search import KnowledgeBase
from retrieval.snapshot import resolve

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Refused:
    """A snapshot that was not taken, and why."""

    name: str
    reason: str


class LiveKnowledge:
    """The snapshot in force under a folder. `refresh` belongs into a thread of its own: it hashes every file.

    Args:
        folder: knowledge folder with CURRENT. May be empty at first; then `current` is None.
        tau: score gate for every snapshot; each manifest's own when None.
    """

    def __init__(self, folder: Path, tau: float | None = None) -> None:
        self._folder = folder
        self._tau = tau
        self._current: KnowledgeBase | None = None
        self._refused: Refused | None = None
        self._checked_at = 0.0
        self._loading = threading.Lock()

    @property
    def current(self) -> KnowledgeBase | None:
        """The knowledge to use now, or None when none could be loaded yet."""
        return self._current

    @property
    def refused(self) -> Refused | None:
        """The latest snapshot that was refused, until a good one is taken."""
        return self._refused

    @property
    def checked_at(self) -> float:
        """When a look last found the newest snapshot in force, in seconds since the epoch; 0 for never."""
        return self._checked_at

    def refresh(self) -> bool:
        """Load the snapshot in force if it is not the current one. True when it was swapped in.

        A bad snapshot is refused and remembered in `refused`; the last good one stays. It is tried again on the next
        call, since a slow copy to the folder may have been under way.
        """
        with self._loading:
            name = str(self._folder)
            try:
                snapshot = resolve(self._folder)
                name = snapshot.name
                if self._current is not None and self._current.version == name:
                    self._refused, self._checked_at = None, time.time()
                    return False
                loaded = KnowledgeBase.open(snapshot, self._tau)
            except KnowledgeError as error:
                self._refused = Refused(name, str(error))
                return False
            self._current, self._refused, self._checked_at = loaded, None, time.time()
            return True
