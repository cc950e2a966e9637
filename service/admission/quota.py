"""Quotas: requests and computed tokens per second under a name. Over it is the caller's doing: 429, not 503."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from service.admission.bucket import Bucket
from service.errors import QuotaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.request import Caller, Quota

MOST_NAMES: Final = 10_000  # buckets kept; the least recently used is forgotten, and is full when it comes back

_Pair = tuple[Bucket | None, Bucket | None]  # requests, tokens


class Quotas:
    """The allowances of one process.

    Args:
        default: of each tenant without one of its own; its name is not used.
        burst_seconds: an unused allowance adds up for so long.
        workers: processes that share each allowance; each enforces its part.
    """

    def __init__(self, default: Quota, *, burst_seconds: float, workers: int = 1) -> None:
        self._default = default
        self._burst = burst_seconds
        self._workers = workers
        self._kept: OrderedDict[str, tuple[Quota, _Pair]] = OrderedDict()

    def knock(self, caller: Caller, now: float) -> None:
        """Count one request.

        Raises:
            QuotaError: an allowance, of requests or of tokens, is used up. A refused request is not charged for.
        """
        pairs = list(self._pairs(caller, now))
        wait = max((b.wait(now) for pair in pairs for b in pair if b), default=0.0)
        if wait > 0:
            milliseconds = math.ceil(wait * 1000.0)
            raise QuotaError(f"the quota of this caller is used up for {milliseconds} ms", retry_after_ms=milliseconds)
        for requests, _ in pairs:
            if requests:
                requests.charge(1.0, now)

    def charge(self, caller: Caller, tokens: float, now: float) -> None:
        """Count tokens that will be computed; what a cache answers is free. A debt is refused at the next knock."""
        for _, bucket in self._pairs(caller, now):
            if bucket:
                bucket.charge(tokens, now)

    def _pairs(self, caller: Caller, now: float) -> Iterator[_Pair]:
        named = [(quota.name, quota) for quota in caller.quotas]
        if caller.by_default:
            named.append((f"default:{caller.tenant}", self._default))
        for name, quota in named:
            if quota.requests_per_second is None and quota.tokens_per_second is None:
                continue
            kept = self._kept.get(name)
            if kept is None or kept[0] != quota:  # new, or its roster was reloaded with other numbers
                requests, tokens = kept[1] if kept else (None, None)
                requests = self._bucket(quota.requests_per_second, now, requests)
                tokens = self._bucket(quota.tokens_per_second, now, tokens)
                kept = self._kept[name] = (quota, (requests, tokens))
                if len(self._kept) > MOST_NAMES:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(name)
            yield kept[1]

    def _bucket(self, rate: float | None, now: float, old: Bucket | None) -> Bucket | None:
        """The old one with other numbers, since what was used up is not given back; a full one where there is none."""
        if rate is None:
            return None
        rate /= self._workers
        burst = max(1.0, rate * self._burst)
        if old is None:
            return Bucket(rate, burst, now)
        old.change(rate, burst, now)
        return old
