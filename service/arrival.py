"""What the door knows of a request before its body is read."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.engines.onward import HEADERS
from service.access.trace import trace_of
from service.request import Timings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from service.access.principal import Principal
    from service.tracing import Tracing

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
        trace: id of the trace that it belongs to, by its caller's word or ours.
        span: of the request, when it is traced.
    """

    id: str
    started: float
    timings_ms: Timings = field(default_factory=Timings)
    notes: dict[str, Any] = field(default_factory=dict)
    principal: Principal | None = None
    trace: str | None = None
    span: Span | None = None

    @property
    def tenant(self) -> str:
        """Whose it is; empty until that is known."""
        return self.principal.caller.tenant if self.principal else ""

    def line(self, seconds: float, **asked: object) -> dict[str, Any]:
        """The fields of its log line, done after so many seconds; `asked` is what the door knows of it."""
        fields = {"id": self.id, **asked, "ms": round(seconds * 1000.0, 3), **self.notes}
        if self.trace is not None:
            fields["trace_id"] = self.trace
        if self.principal is not None:
            fields["tenant"] = self.tenant
            fields["credential"] = self.principal.credential
        if self.timings_ms:
            fields["timings_ms"] = self.timings_ms
        return fields


def arrive(metadata: Mapping[str, str], tracing: Tracing | None = None) -> Arrival:
    """A request that comes now; its name and its trace go along to engines elsewhere, for the task that serves it.

    Args:
        metadata: HTTP headers or gRPC metadata, names in lower case.
        tracing: makes the request a span of that trace, or of a new one.
    """
    name, trace = request_id(metadata.get("x-request-id")), trace_of(metadata)
    headers = trace.headers if trace else {}
    arrival = Arrival(name, time.monotonic(), trace=trace.id if trace else None)
    if tracing is not None:
        arrival.span, arrival.trace, headers = tracing.begin(headers)
    HEADERS.set({"x-request-id": name, **headers})
    return arrival


def arrive_within(first: Arrival, number: int, tracing: Tracing | None = None) -> Arrival:
    """One request, now, of the several that a call brings: named after the call, and a span within the call's."""
    arrival = Arrival(f"{first.id}/{number}", time.monotonic(), principal=first.principal, trace=first.trace)
    headers: Mapping[str, str] = HEADERS.get()
    if tracing is not None and first.span is not None:
        arrival.span, _, headers = tracing.begin({}, within=first.span)
    HEADERS.set({**headers, "x-request-id": arrival.id})
    return arrival


def arrival_of(scope: Mapping[str, Any]) -> Arrival:
    """The arrival that the access layer put into an ASGI scope."""
    arrival: Arrival = scope[SCOPE_KEY]
    return arrival


def request_id(offered: str | None) -> str:
    """The caller's id when it is well-formed, a new one otherwise."""
    return offered if offered is not None and _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
