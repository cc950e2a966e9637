"""The outermost layer of the door: request id, stage times in a header, one log line, and no exception gets past it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from service.arrival import SCOPE_KEY, arrive
from service.errors import ServiceError
from service.http.problems import problem_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from service.arrival import Arrival
    from service.tracing import Tracing

log = logging.getLogger("tierwise.access")

CLIENT_GONE = 499  # nginx's code for a caller that left before the answer; it is logged, never sent


class Observe(Protocol):
    """Is told of every request that is done; see `service.metrics.Metrics.answered`."""

    def __call__(self, path: str, status: int, seconds: float, *, tenant: str) -> None:
        """Take note."""
        ...


class AccessLayer:
    """Pure ASGI: wraps an app."""

    def __init__(self, app: ASGIApp, observe: Observe, tracing: Tracing | None = None) -> None:
        self._app = app
        self._observe = observe
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrival = scope[SCOPE_KEY] = arrive(Headers(scope=scope), self._tracing)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = arrival.id
                if arrival.trace:
                    headers["x-trace-id"] = arrival.trace
                if arrival.timings_ms:
                    headers["server-timing"] = ", ".join(f"{s};dur={ms}" for s, ms in arrival.timings_ms.items())
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            status = CLIENT_GONE
        except Exception:
            log.exception("a defect", extra={"fields": {"id": arrival.id, "path": scope["path"]}})
            if status:  # part of an answer is out already; only closing the connection tells the caller
                raise
            error = ServiceError("a defect of the service; its log has the reason under this request's id")
            await problem_response(error, arrival.id)(scope, receive, answer)
        finally:
            self._record(scope, arrival, status or CLIENT_GONE)

    def _record(self, scope: Scope, arrival: Arrival, status: int) -> None:
        seconds = time.monotonic() - arrival.started
        route = scope.get("route")
        path = getattr(route, "path", "unknown")  # the template: a path made up by a caller is no metric label
        self._observe(path, status, seconds, tenant=arrival.tenant)
        fields = arrival.line(seconds, method=scope["method"], path=scope["path"], status=status)
        log.info("request", extra={"fields": fields})
        if self._tracing is not None and arrival.span is not None:
            facts = {"http.request.method": scope["method"], "http.route": path, "http.response.status_code": status}
            self._tracing.end(arrival.span, arrival, f"{scope['method']} {path}", status, facts)
