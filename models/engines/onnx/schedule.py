"""Which tokens go into the next forward pass: earliest deadline first, under a token budget. Knows no threads.

A request computes its prefix once, then its rows. One pass takes prefixes of several requests, or rows of several
requests, or one decoding step. A large request is cut into passes, so that a more urgent one waits for at most one.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from models.engines.onnx.batch import padded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from models.deadline import Deadline
    from models.engines.onnx.batch import KeysValues
    from models.engines.onnx.runner import Decoding
    from models.engines.port import ItemStatus

_WORTH_SPLITTING: Final = 192  # tokens; a smaller pass costs more in overhead than another thread saves
_PASS_COST: Final = 24  # tokens that could be computed in the time that a pass takes beside computing


PrefixKey = tuple[str, tuple[int, ...]]  # scope, token ids


@dataclass(eq=False, slots=True)
class Request:
    """N items after one prefix.

    Attributes:
        scope: prefixes are shared between requests of one scope only.
        logits: float32 [N, K], filled as passes come back.
        done: called once, when every item has its status.
        keys_values: the prefix, once computed.
        cached_tokens: prefix tokens that were not computed for this request.
        began: monotonic seconds at which its first pass was taken.
        waiting: items that no pass has taken yet, longest first.
        running: items in passes that have not come back.
    """

    prefix: tuple[int, ...]
    suffixes: Sequence[Sequence[int]]
    deadline: Deadline
    scope: str
    logits: NDArray[np.float32]
    done: Callable[[], None]
    keys_values: KeysValues | None = None
    cached_tokens: int = 0
    began: float | None = None
    waiting: list[int] = field(init=False)
    running: int = field(init=False, default=0)
    status: list[ItemStatus | None] = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = sorted(range(len(self.suffixes)), key=lambda i: -len(self.suffixes[i]))
        self.status = [None] * len(self.suffixes)

    @property
    def key(self) -> PrefixKey:
        """What requests must have in common to share a prefix's keys and values."""
        return self.scope, self.prefix

    @property
    def tokens(self) -> int:
        """Tokens that no pass has taken yet; a prefix counts until it is there."""
        prefix = 0 if self.keys_values else len(self.prefix)
        return prefix + sum(len(self.suffixes[i]) for i in self.waiting)

    def drop(self, status: ItemStatus) -> None:
        """Give up what no pass has taken yet."""
        for index in self.waiting:
            self.status[index] = status
        self.waiting.clear()

    @property
    def finished(self) -> bool:
        """Whether every item has its status."""
        return not self.waiting and not self.running


@dataclass(eq=False, slots=True)
class Step:
    """One decoding step of an explanation. `done` takes the next token, or None when there will be none."""

    decoding: Decoding
    deadline: Deadline
    done: Callable[[int | None], None]

    @property
    def tokens(self) -> int:
        """Tokens not computed yet."""
        return len(self.decoding.ids)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """A pass over different prefixes."""

    keys: tuple[PrefixKey, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """A pass over items of one or several requests."""

    items: tuple[tuple[Request, int], ...]


Work = Request | Step
Pass = Prefixes | Rows | Step


class Schedule:
    """The queue. Not thread-safe: its owner holds a lock around every call.

    Args:
        budget: tokens of one pass, padding included; a single longer item still gets a pass.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._queue: list[tuple[Deadline, int, Work]] = []
        self._computing: set[PrefixKey] = set()
        self._count = 0

    @property
    def tokens(self) -> int:
        """Tokens queued and not taken by a pass."""
        return sum(work.tokens for _, _, work in self._queue)

    def add(self, work: Work) -> None:
        """Queue by deadline, then by arrival."""
        self._count += 1
        insort(self._queue, (work.deadline, self._count, work), key=lambda entry: entry[:2])

    def remove(self, work: Work) -> None:
        """Take no more passes from this work."""
        self._queue = [entry for entry in self._queue if entry[2] is not work]

    def clear(self) -> list[Work]:
        """Empty the queue; returns what was in it."""
        ended = [work for _, _, work in self._queue]
        self._queue = []
        return ended

    def expired(self) -> list[Work]:
        """Remove and return what is past its deadline."""
        ended = []
        while self._queue and self._queue[0][0].expired:
            ended.append(self._queue.pop(0)[2])
        return ended

    def computed(self, key: PrefixKey, keys_values: KeysValues | None) -> list[Request]:
        """A prefix came back, or failed (None): the requests that waited for it. Failed ones leave the queue."""
        self._computing.discard(key)
        waited = [r for r in self._requests() if r.key == key and r.keys_values is None]
        for request in waited:
            request.keys_values = keys_values
            if keys_values is None:
                self.remove(request)
        return waited

    def waiting_for(self, keys: Collection[PrefixKey]) -> list[Request]:
        """Requests whose prefix is among these and not there yet."""
        return [r for r in self._requests() if r.keys_values is None and r.key in keys]

    def take(self, idle: int = 1) -> Pass | None:
        """The next pass, or None when nothing can run now.

        Args:
            idle: workers without a pass, the caller included; little work is spread over them.
        """
        for _, _, work in self._queue:
            if isinstance(work, Step):
                self.remove(work)
                return work
            if work.keys_values is not None:
                return self._take_rows(idle)
            if work.key not in self._computing:
                return self._take_prefixes()
        return None

    def _requests(self) -> Iterator[Request]:
        return (work for _, _, work in self._queue if isinstance(work, Request))

    def _take_prefixes(self) -> Prefixes:
        """Prefixes that nobody computes yet, most urgent first, while they fit."""
        chosen: list[PrefixKey] = []
        longest = 0
        for request in self._requests():
            if request.keys_values is not None or request.key in self._computing:
                continue
            longest = max(longest, padded(len(request.prefix)))
            if chosen and longest * (len(chosen) + 1) > self._budget:
                break
            chosen.append(request.key)
            self._computing.add(request.key)
        return Prefixes(tuple(chosen))

    def _take_rows(self, idle: int) -> Rows:
        """Items of the most urgent request, its longest first, and then what fits of the others.

        All rows of a pass are padded to its longest, so rows that are much shorter are left to a later pass.
        """
        ready = [request for request in self._requests() if request.keys_values is not None]
        tokens = sum(padded(len(request.suffixes[i])) for request in ready for i in request.waiting)
        parts = max(1, min(idle, tokens // _WORTH_SPLITTING))
        limit = min(self._budget, -(-tokens // parts))
        longest = padded(len(ready[0].suffixes[ready[0].waiting[0]]))
        items: list[tuple[Request, int]] = []
        for request in ready:
            fitting = _fitting(request, longest)
            room = max(0 if items else 1, limit // longest - len(items))
            chosen = request.waiting[fitting][:room]
            request.waiting[fitting] = request.waiting[fitting][room:]
            request.running += len(chosen)
            items += [(request, index) for index in chosen]
            if not request.waiting:
                self.remove(request)
            if (len(items) + 1) * longest > limit:
                break
        return Rows(tuple(items))


def _fitting(request: Request, longest: int) -> slice:
    """Which waiting items of a request, longest first, to pad to `longest`.

    Going on to the next shorter item is worth it while all that are left would waste fewer tokens than a pass costs.
    """
    lengths = [padded(len(request.suffixes[i])) for i in request.waiting]
    start = sum(length > longest for length in lengths)
    stop = start
    while stop < len(lengths) and (longest - lengths[stop]) * (len(lengths) - stop) <= _PASS_COST:
        stop += 1
    return slice(start, stop)
