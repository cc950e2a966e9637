"""How a measurement tells what it has done so far."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # stage, done, in all


def silent(stage: str, done: int, total: int) -> None:
    """Tells nobody."""
    del stage, done, total


def counting(progress: Progress, stage: str, total: int) -> Callable[..., None]:
    """A callback that adds up what it is told (one when told nothing) and passes the sum on."""
    done = 0

    def count(more: int = 1) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    return count
