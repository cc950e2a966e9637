"""The result cache as the pipeline sees it: recall what is known of a request, complete it, keep what was new."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.engines.port import ItemStatus
from service.cache.entry import (
    decision_of,
    is_entry,
    is_reference,
    read_entries,
    read_reference,
    write_entries,
    write_reference,
)
from service.cache.flight import Flights
from service.cache.key import KeyMaker, Keys
from service.cache.memory import MemoryCache
from service.cache.remote import REMOVALS, RemoteCache
from service.errors import ServiceError
from service.fetch import Fetched
from service.rows import OK, unscored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from models.deadline import Deadline
    from models.manifest import Manifest
    from service.cache.settings import CacheSettings
    from service.fetch import Basis
    from service.request import ScoreRequest
    from service.rows import Rows

log = logging.getLogger(__name__)

JITTER: Final = 0.1  # a life ends up to this share early, so that what was stored together in time does not end so
# Scales XFetch's exponential (Vattani et al., VLDB 2015): a hit is computed again early with a chance that rises as
# its end nears, on average this many times its own cost before it. The paper's 1 is for requests that wait.
EAGERNESS: Final = 10.0
REFRESHES: Final = 2  # at once
UNPROVED: Final = REMOVALS  # keys remembered between two looks at the engine: as many as can be removed from Redis


@dataclass(slots=True)
class CacheStats:
    """Items since the start, but for `refreshes`, which are requests."""

    memory_hits: int = 0
    remote_hits: int = 0
    misses: int = 0
    stores: int = 0
    corrupted: int = 0  # values from Redis that are not what was written under their key
    other_decision: int = 0  # hits that were dropped: scored under another chunk than the request's
    refreshes: int = 0


@dataclass(frozen=True, slots=True)
class Recalled:
    """What the cache knows of one request.

    Attributes:
        keys: of the request, under `basis`.
        basis: what the choice of the chunk depended on at that time.
        rows: N records, EXPIRED where missing; not to be written to.
        missing: positions of items that have to be computed.
        fetched: the chunk decision of the hits; None when it is not known, and then every item is missing.
        due: whether hits should be computed again soon.
    """

    keys: Keys
    basis: Basis
    rows: Rows
    missing: list[int]
    fetched: Fetched | None
    due: bool = False


class ResultCache:
    """Scores by content: in this process, then in Redis. One for each judge behind an engine.

    Args:
        settings: of the cache.
        manifest: the judge's.
        engine: name of the engine.
        beside: the cache of another judge in this process, to share memory, Redis and counters with; never a key.
            Closed before that one.
    """

    def __init__(
        self, settings: CacheSettings, manifest: Manifest, engine: str, *, beside: ResultCache | None = None
    ) -> None:
        self.stats: CacheStats = beside.stats if beside else CacheStats()
        self.memory: MemoryCache = beside.memory if beside else MemoryCache(settings.memory_bytes)
        self.remote: RemoteCache | None = (
            beside.remote if beside else RemoteCache(settings) if settings.remote else None
        )
        self.flights: Flights = beside.flights if beside else Flights()
        self._guest = beside is not None
        self._keys = KeyMaker(manifest, engine)
        self._tiers = len(manifest.tiers)
        self._ttl = settings.ttl_seconds
        self._refreshes: dict[bytes, asyncio.Task[None]] = {}
        self._unproved: deque[tuple[bytes, bytes]] = deque(maxlen=UNPROVED)  # digest of the shared part, of the item
        self._trusted = True

    def serves(self, manifest: Manifest, engine: str) -> bool:
        """Whether what is kept is what this checkpoint would score behind this engine; beta and temperature aside."""
        return KeyMaker(manifest, engine).judge == self._keys.judge

    def trust(self, right: bool) -> None:  # noqa: FBT001 # what a probe of the engine found
        """The engine answered known pairs rightly, or not: then nothing that it scored since it last did is kept."""
        if not right:
            log.error("cache: forgetting %d scores of an engine that answers wrongly", len(self._unproved))
            for shared, key in self._unproved:
                self.memory.drop(key)
                if self.remote is not None:
                    self.remote.forget(shared, key)
        self._unproved.clear()
        self._trusted = right

    async def recall(self, tenant: str, basis: Basis, request: ScoreRequest, deadline: Deadline) -> Recalled:
        """Look a request's items up, in one round trip at most. Never raises but for cancellation."""
        keys = self._keys_of(tenant, basis, request)
        known = self.memory.get_all(keys.items)
        in_memory = sum(value is not None for value in known)
        fetched = basis.decided or _decision(self.memory.get(keys.shared), basis)
        if self.remote is not None and (fetched is None or in_memory < len(known)):
            value = await self._ask_remote(self.remote, keys, known, deadline, decide=fetched is None)
            fetched = fetched or _decision(value, basis)
        recalled = self._read(keys, basis, known, fetched)
        hits = len(known) - len(recalled.missing)
        self.stats.memory_hits += min(hits, in_memory)
        self.stats.remote_hits += max(0, hits - in_memory)
        self.stats.misses += len(recalled.missing)
        return recalled

    async def complete(
        self,
        recalled: Recalled,
        fetched: Fetched,
        compute: Callable[[Sequence[int]], Awaitable[Rows]],
        deadline: Deadline,
        grace: float,
    ) -> Rows:
        """Have what is missing computed, or wait for an equal request that does; keep it where it may be kept.

        One chunk decision holds for the whole request: hits that were scored under another are computed again.

        Args:
            recalled: what is known.
            fetched: the chunk decision in force.
            compute: records for some positions of the request, in their order.
            deadline: of the request.
            grace: seconds of patience past the deadline.

        Returns:
            N records.

        Raises:
            Whatever `compute` does.
        """
        decision = decision_of(fetched.reference)
        missing = recalled.missing
        if recalled.fetched is not None and decision != decision_of(recalled.fetched.reference):
            self.stats.other_decision += len(recalled.rows) - len(missing)
            missing = list(range(len(recalled.rows)))
        if fetched.index != recalled.basis.index:  # another snapshot by now: the keys name the old one
            return await compute(range(len(recalled.rows)))

        async def compute_missing(chosen: Sequence[int]) -> Rows:
            started = time.monotonic()
            rows = await compute([missing[n] for n in chosen])
            if not fetched.failed:
                keys = [recalled.keys.items[missing[n]] for n in chosen]
                self._keep(recalled, fetched, keys, rows, time.monotonic() - started)
            return rows

        names = [recalled.keys.items[n] + decision.to_bytes(8, "little") for n in missing]
        computed = await self.flights.run(names, compute_missing, deadline, tiers=self._tiers, grace=grace)
        if len(missing) == len(recalled.rows):
            return computed
        rows = recalled.rows.copy()
        rows[missing] = computed
        return rows

    def forgotten(self, recalled: Recalled) -> Recalled:
        """The same request as if nothing were known of it."""
        count = len(recalled.rows)
        rows = unscored(count, self._tiers, ItemStatus.EXPIRED)
        return Recalled(recalled.keys, recalled.basis, rows, list(range(count)), None)

    def refresh(self, recalled: Recalled, again: Callable[[], Awaitable[Any]]) -> None:
        """Run `again` in the background, unless enough of that is going on."""
        shared = recalled.keys.shared
        if shared in self._refreshes or len(self._refreshes) >= REFRESHES:
            return
        self.stats.refreshes += 1
        task = asyncio.get_running_loop().create_task(_quietly(again), name="cache-refresh")
        self._refreshes[shared] = task
        task.add_done_callback(lambda _: self._refreshes.pop(shared, None))

    async def close(self) -> None:
        """End what runs in the background."""
        tasks = tuple(self._refreshes.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.remote is not None and not self._guest:
            await self.remote.close()

    def _keys_of(self, tenant: str, basis: Basis, request: ScoreRequest) -> Keys:
        made_for = (self._keys, tenant, basis.parts)
        known: tuple[object, Keys] | None = request.derived.get("keys")
        if known is not None and known[0] == made_for:
            return known[1]
        keys = self._keys.keys(tenant, basis.parts, request.query, (c.item for c in request.candidates))
        request.derived["keys"] = made_for, keys
        return keys

    async def _ask_remote(
        self, remote: RemoteCache, keys: Keys, known: list[bytes | None], deadline: Deadline, *, decide: bool
    ) -> bytes | None:
        """Fill what Redis has into `known` and into memory; the value of the chunk decision if wanted."""
        wanted = [n for n, value in enumerate(known) if value is None]
        names = [keys.items[n] for n in wanted]
        values = await remote.read(keys.shared, [*names, b""] if decide else names, deadline)
        reference = values.pop() if decide else None
        if reference is not None and not is_reference(keys.shared, reference):
            self.stats.corrupted += 1
            reference = None
        if reference is not None:
            self.memory.put(keys.shared, reference)
        for n, value in zip(wanted, values, strict=True):
            if value is None:
                continue
            if is_entry(keys.items[n], value, self._tiers):
                known[n] = value
                self.memory.put(keys.items[n], value)
            else:
                self.stats.corrupted += 1
        return reference

    def _read(self, keys: Keys, basis: Basis, known: list[bytes | None], fetched: Fetched | None) -> Recalled:
        """Take apart the values that are of use under the request's chunk decision."""
        values = [value for value in known if value is not None]
        if fetched is None or not values:
            rows = unscored(len(known), self._tiers, ItemStatus.EXPIRED)
            return Recalled(keys, basis, rows, list(range(len(known))), fetched)
        entries = read_entries(values, self._tiers)
        now = time.time()
        found, expires = entries["row"], entries["expires"]
        usable = (entries["decision"] == decision_of(fetched.reference)) & (expires > now)
        usable &= (found["status"] == OK) & np.isfinite(found["logprobs"]).all(axis=1)
        early = -EAGERNESS * math.log(1.0 - random.random())
        due = bool((usable & (expires - entries["cost"] * early <= now)).any())
        if len(values) == len(known) and usable.all():
            return Recalled(keys, basis, found, [], fetched, due)
        places = np.array([n for n, value in enumerate(known) if value is not None])
        rows = unscored(len(known), self._tiers, ItemStatus.EXPIRED)
        rows[places[usable]] = found[usable]
        return Recalled(keys, basis, rows, np.flatnonzero(rows["status"] != OK).tolist(), fetched, due)

    def _keep(self, recalled: Recalled, fetched: Fetched, keys: Sequence[bytes], rows: Rows, cost: float) -> None:
        ok = rows["status"] == OK
        good = [key for key, fine in zip(keys, ok.tolist(), strict=True) if fine]
        if not (good and self._trusted):
            return
        self._unproved.extend((recalled.keys.shared, key) for key in good)
        # One jitter for all of a request: its items should be missed together, not one by one.
        life = self._ttl * (1.0 - JITTER * random.random())
        expires = time.time() + life
        kept = list(
            zip(good, write_entries(good, rows[ok], decision_of(fetched.reference), expires, cost), strict=True)
        )
        for key, value in kept:
            self.memory.put(key, value)
        self.stats.stores += len(kept)
        if recalled.basis.decided is None:
            reference = write_reference(recalled.keys.shared, fetched.reference, expires)
            self.memory.put(recalled.keys.shared, reference)
            kept.append((b"", reference))
        if self.remote is not None:
            self.remote.write(recalled.keys.shared, kept, life)


def _decision(value: bytes | None, basis: Basis) -> Fetched | None:
    """The kept chunk decision of a query; the chunk's text is not kept, since a full hit needs none."""
    if value is None:
        return None
    reference, expires = read_reference(value)
    return Fetched(reference=reference, index=basis.index) if expires > time.time() else None


async def _quietly(again: Callable[[], Awaitable[Any]]) -> None:
    try:
        await again()
    except ServiceError as error:
        log.info("cache: a refresh was given up: %s", error)
    except Exception:
        log.exception("cache: a refresh failed")
