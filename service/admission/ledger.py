"""What was taken on and has not come back, by deadline, and when one more would end. Pure.

The engine computes earliest deadline first. That order collapses under overload: a request that is let in although it
cannot end in time delays those behind it, until all end late. So one is let in only if it ends in time *and* every one
that was let in before, and would now be computed after it, still does: the schedulability test of EDF.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(eq=False, slots=True)
class Entry:
    """One request in the engine.

    Attributes:
        due: monotonic seconds by which it must end.
        tokens: its cost.
    """

    due: float
    tokens: float
    tenant: str


def _due(entry: Entry) -> float:
    return entry.due


class Ledger:
    """The entries, most urgent first; equal deadlines by arrival."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._held: Counter[str] = Counter()
        self.tokens = 0.0  # of all entries

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Take on."""
        insort(self._entries, entry, key=_due)
        self.tokens += entry.tokens
        self._held[entry.tenant] += entry.tokens  # type: ignore[assignment] # a Counter adds up floats as well

    def remove(self, entry: Entry) -> None:
        """It came back."""
        del self._entries[self._entries.index(entry, bisect_left(self._entries, entry.due, key=_due))]
        self.tokens = self.tokens - entry.tokens if self._entries else 0.0
        self._held[entry.tenant] -= entry.tokens  # type: ignore[assignment] # as above
        if self._held[entry.tenant] <= 0:
            del self._held[entry.tenant]

    def held(self, tenant: str) -> float:
        """Tokens of one tenant."""
        return self._held[tenant]

    def ahead(self, due: float, done: float = 0.0) -> float:
        """Tokens that are computed before a request with this deadline.

        Args:
            due: its deadline.
            done: tokens computed since the last request came back: the most urgent one is not whole any more.
        """
        # Most callers wait equally long, so nearly all entries are ahead: those that are not are the few to add up.
        later = sum(e.tokens for e in self._entries[self._place(due) :])
        return self.tokens - later - self._credit(done)

    def slack(self, due: float, now: float, rate: float, done: float = 0.0) -> float:
        """Tokens that can be put before the entries due later than this without making one of them late.

        An entry that is late already cannot be made late: it is not counted.
        """
        least = float("inf")
        for entry, end in self._later(due, done):
            room = (entry.due - now) * rate - end
            if 0 <= room < least:
                least = room
        return least

    def _later(self, due: float, done: float) -> Iterator[tuple[Entry, float]]:
        """Entries due later, each with the tokens that are computed until it ends."""
        end = self.ahead(due, done)
        for entry in self._entries[self._place(due) :]:
            end += entry.tokens
            yield entry, end

    def _place(self, due: float) -> int:
        return bisect_right(self._entries, due, key=_due)

    def _credit(self, done: float) -> float:
        return min(done, self._entries[0].tokens) if self._entries else 0.0
