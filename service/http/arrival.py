"""What the door knows of a request before its body is read."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.access.principal import Principal

SCOPE_KEY = "tierwise.arrival"
# What may come back in a header and in a log line as it stands.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(slots=True)
class Arrival:
    """One request at the door.

    Attributes:
        id: the caller's `x-request-id` when it is well-formed, else ours.
        started: monotonic seconds.
        timings_ms: milliseconds by stage, filled as the request goes on.
        notes: what the request's log line says beyond the usual.
        principal: who sent it, once that is known.
    """

    id: str
    started: float
    timings_ms: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    principal: Principal | None = None


def arrival_of(scope: Mapping[str, Any]) -> Arrival:
    """The arrival that the access layer put into an ASGI scope."""
    arrival: Arrival = scope[SCOPE_KEY]
    return arrival


def request_id(offered: str | None) -> str:
    """The caller's id when it is well-formed, a new one otherwise."""
    return offered if offered is not None and _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
