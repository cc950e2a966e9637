"""What the server needs of a door: a way in for callers, over one protocol."""

from __future__ import annotations

from typing import Protocol


class Door(Protocol):
    """Served by `service.server`. Order at the end of the process: `announce`, a pause, `end`, and `serve` returns."""

    @property
    def name(self) -> str:
        """For the log, e.g. `http`."""
        ...

    @property
    def address(self) -> str:
        """Where it listens, e.g. `http://127.0.0.1:8080`."""
        ...

    async def serve(self) -> None:
        """Take calls until `end`, then finish those in flight, at most `drain_seconds` long, and return."""
        ...

    def announce(self) -> None:
        """The process is about to end: tell callers who ask (NOT_SERVING), and go on taking calls."""
        ...

    def end(self) -> None:
        """Take no new calls; finish those in flight. May come before `serve` has begun."""
        ...

    def abort(self) -> None:
        """Do not wait for calls in flight."""
        ...
