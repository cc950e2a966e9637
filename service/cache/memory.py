"""The cache in this process: least recently used entries go first, bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

# What CPython takes for one entry beside key and value: object headers, dictionary slot and list node. Measured, 140 to
# 225 by how full the dictionary is, and rounded up as the allocator does (docs/cache.md).
OVERHEAD_BYTES: Final = 256


class MemoryCache:
    """Bytes by key. Not for several threads."""

    def __init__(self, limit_bytes: int) -> None:
        self.bytes = 0
        self.evicted = 0
        self._limit = limit_bytes
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> bytes | None:
        """The value, which becomes the youngest."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def get_all(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """One value or None for each key, in their order."""
        return [self.get(key) for key in keys]

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value as the youngest; the oldest make room. One that alone is over the bound is not kept."""
        self.drop(key)
        size = _size(key, value)
        if size > self._limit:
            return
        self._entries[key] = value
        self.bytes += size
        while self.bytes > self._limit:
            oldest, dropped = self._entries.popitem(last=False)
            self.bytes -= _size(oldest, dropped)
            self.evicted += 1

    def drop(self, key: bytes) -> None:
        """Forget a key, if it is there."""
        value = self._entries.pop(key, None)
        if value is not None:
            self.bytes -= _size(key, value)


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + OVERHEAD_BYTES
