"""Room in the engine's queue: how many tokens one more request may cost and still end in time. Pure.

Predicted end = (tokens that are computed before it + its own) / measured rate. The bounds, the tightest of which holds:

- it ends within its deadline, with something kept back for the prediction's error and for more important callers;
- nothing that was taken on before, and would be computed after it, becomes late;
- the tokens taken on stay below the configured cap;
- under contention, its tenant holds no more than its part of the queue.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from service.admission.fair import CONTENDED, Fair
from service.admission.ledger import Entry, Ledger
from service.admission.meter import Meter
from service.request import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.deadline import Deadline
    from service.request import Caller

# How much of the time that is left may be filled. What is kept back covers the prediction's error; batch leaves half of
# the queue to the others, and the default a part to what is critical.
FILL: Final = {Priority.CRITICAL: 0.9, Priority.DEFAULT: 0.7, Priority.BATCH: 0.4}
PASS_TOKENS: Final = 512.0  # of one forward pass of a less urgent request, which cannot be called back
COLD_RATE: Final = 8_192.0  # tokens a second, on the safe side, until the first request has shown the rate


class Bound(StrEnum):
    """What limits a request, as its caller reads it."""

    TIME = "it would end after its deadline"
    OTHERS = "it would make requests late that were taken on before"
    QUEUE = "too many tokens are queued"
    SHARE = "its tenant holds its share of the queue"


class Room(NamedTuple):
    """Tokens that a request may cost, and what keeps it from more."""

    tokens: float
    bound: Bound


class Queue:
    """What one engine has taken on, and how fast it works.

    Args:
        most_tokens: taken on at a time.
        weights: of tenants, 1 if not named.
    """

    def __init__(self, most_tokens: float, weights: Mapping[str, float]) -> None:
        self.meter = Meter()
        self.fair = Fair(weights)
        self._ledger = Ledger()
        self._most = most_tokens

    @property
    def tokens(self) -> float:
        """Taken on and not finished."""
        return self._ledger.tokens

    @property
    def requests(self) -> int:
        """Taken on and not finished."""
        return len(self._ledger)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not len(self._ledger)

    def seconds(self) -> float:
        """Until everything taken on is done; 0 while the rate is not known."""
        rate = self.meter.rate
        return self._ledger.tokens / rate if rate else 0.0

    def alone(self, caller: Caller, deadline: Deadline, now: float) -> float:
        """Tokens that an idle engine would do in the time."""
        rate = self.meter.rate
        return math.inf if rate is None else rate * max(0.0, deadline.at - now) * FILL[caller.priority]

    def crowded(self, caller: Caller, deadline: Deadline, now: float) -> float:
        """How full the queue is for a request like this: 1 when nothing more fits."""
        alone = self.alone(caller, deadline, now)
        return self._ledger.tokens / alone if alone else 1.0

    def room(self, caller: Caller, deadline: Deadline, now: float) -> Room:
        """Tokens for one more request of this caller; may be negative. Call `fair.saw` first."""
        rate = self.meter.rate
        cap = Room(self._most - self._ledger.tokens, Bound.QUEUE)
        if rate is None:
            time = COLD_RATE * max(0.0, deadline.at - now) * FILL[caller.priority]
            return min(cap, Room(time - self._ledger.tokens, Bound.TIME))
        done = 0.0 if self.meter.since is None else (now - self.meter.since) * rate
        alone = self.alone(caller, deadline, now)
        ahead = self._ledger.ahead(deadline.at, done)
        slack = self._ledger.slack(deadline.at, now, rate * FILL[Priority.CRITICAL], done)
        blocked = PASS_TOKENS if slack < math.inf else 0.0
        bounds = [cap, Room(alone - ahead - blocked, Bound.TIME), Room(slack, Bound.OTHERS)]
        share = self.fair.held_to(caller.tenant, rate, now)
        if share is not None and self._ledger.tokens > CONTENDED * alone:
            # Below its part it may take one more of any size: the part of a few requests must not round down to none.
            held = self._ledger.held(caller.tenant)
            bounds.append(Room(math.inf if held < share * alone else 0.0, Bound.SHARE))
        return min(bounds)

    def take(self, entry: Entry, now: float) -> None:
        """Take on."""
        self.fair.got(entry.tenant, entry.tokens, now)
        self.meter.began(now)
        self._ledger.add(entry)

    def give(self, entry: Entry, now: float, computed: float) -> None:
        """It came back, with this share of its tokens computed."""
        self._ledger.remove(entry)
        self.meter.ended(entry.tokens * computed, now, idle=self.idle)
