"""Where a request goes and how often it may go again. Pure.

Rendezvous hashing (Thaler and Ravishankar, 1998): every gateway ranks the servers for a prefix the same way without
talking to the others, and a server that leaves moves only its own prefixes. Retry budgets: Google SRE, chapter 21.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def prefix_key(prefix: Sequence[int], scope: str) -> bytes:
    """What the prefix caches of servers are keyed by: the shared ids and the tenant."""
    return hashlib.blake2b(struct.pack(f"<{len(prefix)}q", *prefix) + scope.encode(), digest_size=16).digest()


def ranked(key: bytes, servers: Sequence[str]) -> list[str]:
    """Servers in this key's order of preference."""
    return sorted(servers, key=lambda url: hashlib.blake2b(url.encode(), key=key, digest_size=8).digest())


def with_spill(order: Sequence[str], load: Mapping[str, int], spill_tokens: int) -> list[str]:
    """The same order, unless the first one's queue is long: then least loaded first.

    Args:
        order: at least one server, preferred first.
        load: tokens sent to each and not yet answered.
        spill_tokens: a queue below this is worth waiting in for the warm cache.
    """
    first = order[0]
    least = min(load[url] for url in order)
    if load[first] < spill_tokens or load[first] <= 2 * least:
        return list(order)
    return sorted(order, key=lambda url: load[url])  # stable: equal loads keep the order of preference


@dataclass(slots=True)
class RetryBudget:
    """Extra calls are a share of first calls, so that retries cannot multiply an overload.

    Attributes:
        ratio: extra calls per first call.
        most: extra calls that may be saved up.
    """

    ratio: float = 0.1
    most: float = 10.0
    _saved: float = 1.0

    def call(self) -> None:
        """A first call was made."""
        self._saved = min(self.most, self._saved + self.ratio)

    def take(self) -> bool:
        """Whether one extra call may be made now; if so it is spent."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
