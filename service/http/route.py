"""Routes that parse JSON strictly and write it at pydantic's speed, while FastAPI still documents them.

FastAPI reads a body of any length, takes the last of two equal keys, and has an error format of its own. A `JsonRoute`
keeps FastAPI's reading of the endpoint's signature, which makes the OpenAPI document, and replaces what runs:
`async def endpoint(body: Model, request: Request) -> Reply`. It is also faster (bench/route.py, docs/http.md).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, get_type_hints

from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.responses import Response

from service.arrival import arrival_of
from service.gate import deadline_of, header_budgets
from service.http.body import declared_size, read_body
from service.http.leaving import while_connected
from service.parse import parse_body
from service.repeats import Repeats
from service.request import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request

    from models.deadline import Deadline
    from service.gateway import Gateway
    from service.request import Caller


class JsonRoute(APIRoute):
    """One POST route with a JSON body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that replaces FastAPI's."""
        endpoint = self.endpoint
        hints = get_type_hints(endpoint)
        repeats = Repeats(lambda raw, _: parse_body(hints["body"], raw))
        dump = TypeAdapter(hints["return"]).dump_json

        async def handle(request: Request) -> Response:
            arrival = arrival_of(request.scope)
            gateway = gateway_of(request)
            limit = gateway.settings.limits.body_bytes
            with gateway.admission.visit(caller_of(request), declared_size(request, limit), _latest(request)):
                raw = await read_body(request, limit)
                started = time.monotonic()
                body = repeats.read(raw, caller_of(request))
                arrival.timings_ms.add("parse", started)
                reply = await while_connected(request.receive, endpoint(body=body, request=request))
                return Response(dump(reply), media_type="application/json")

        return handle


def gateway_of(request: Request) -> Gateway:
    """What the process serves with."""
    gateway: Gateway = request.app.state.gateway
    return gateway


def caller_of(request: Request) -> Caller:
    """Who sent a request."""
    principal = arrival_of(request.scope).principal
    assert principal is not None  # noqa: S101 # the guard is in front of every route that asks
    return principal.caller


def call_of(request: Request, deadline_ms: float | None) -> Call:
    """The call that a request makes: its deadline is the earliest of headers, body and configuration.

    Raises:
        NotReadyError: the self-test has not passed.
        InvalidRequestError: a deadline header is not a positive number.
    """
    arrival = arrival_of(request.scope)
    gateway = gateway_of(request)
    gateway.health.check_tested()
    deadline = _latest(request)
    if deadline_ms is not None:
        deadline = min(deadline, deadline_of(arrival.started, [deadline_ms]))
    return Call(
        id=arrival.id,
        deadline=deadline,
        started=arrival.started,
        timings_ms=arrival.timings_ms,
        caller=caller_of(request),
    )


def _latest(request: Request) -> Deadline:
    """The latest deadline that a call can have, known before its body is: of headers and configuration."""
    budgets = [gateway_of(request).settings.deadline_ms, *header_budgets(request.headers)]
    return deadline_of(arrival_of(request.scope).started, budgets)
