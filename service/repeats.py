"""Bodies seen lately. Callers send the same one again and again: retries, hedges, the queries that everybody types.

Reading a body, and what follows from it alone, is half the work of a cached answer. What is remembered is what exactly
these bytes say, never an answer: whether and how it is scored is decided anew each time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.request import Caller

Read = TypeVar("Read")

LIMIT_BYTES: Final = 2**20  # of bodies; what is made of them takes about ten times as much
LONGEST_SHARE: Final = 0.1  # of that, for one body


class Repeats(Generic[Read]):
    """What was read, by its bytes; the least recently used go first. Not for several threads.

    Args:
        read: bytes of a body, and the tenant that sent them, to what they say; pure but for its exceptions.
        limit_bytes: of bodies.
    """

    def __init__(self, read: Callable[[bytes, str], Read], limit_bytes: int = LIMIT_BYTES) -> None:
        self.bytes = 0
        self._read = read
        self._limit = limit_bytes
        self._seen: OrderedDict[tuple[str, bytes], Read] = OrderedDict()

    def read(self, raw: bytes, caller: Caller) -> Read:
        """Read, or remember having done so for this caller's tenant: no other can tell by the clock.

        Raises:
            Whatever `read` does; what was refused is not remembered.
        """
        key = (caller.tenant, raw)
        known = self._seen.get(key)
        if known is not None:
            self._seen.move_to_end(key)
            return known
        made = self._read(raw, caller.tenant)
        if len(raw) <= LONGEST_SHARE * self._limit:
            self._seen[key] = made
            self.bytes += len(raw)
            while self.bytes > self._limit:
                (_, oldest), _ = self._seen.popitem(last=False)
                self.bytes -= len(oldest)
        return made
