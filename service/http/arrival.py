"""What the door knows of a request before its body is read."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.engines.onward import HEADERS
from service.access.trace import trace_of

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
        trace: id of the trace that the caller says it belongs to.
    """

    id: str
    started: float
    timings_ms: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    principal: Principal | None = None
    trace: str | None = None


def arrive(metadata: Mapping[str, str]) -> Arrival:
    """A request that comes now; its name and its trace go along to engines elsewhere, for the task that serves it.

    Args:
        metadata: HTTP headers or gRPC metadata, names in lower case.
    """
    name, trace = request_id(metadata.get("x-request-id")), trace_of(metadata)
    HEADERS.set({"x-request-id": name, **(trace.headers if trace else {})})
    return Arrival(name, time.monotonic(), trace=trace.id if trace else None)


def arrival_of(scope: Mapping[str, Any]) -> Arrival:
    """The arrival that the access layer put into an ASGI scope."""
    arrival: Arrival = scope[SCOPE_KEY]
    return arrival


def request_id(offered: str | None) -> str:
    """The caller's id when it is well-formed, a new one otherwise."""
    return offered if offered is not None and _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
