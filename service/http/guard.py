"""Lets nobody in without a credential, where a path needs one: before routing, and before the body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers

from service.access.principal import Scope
from service.arrival import arrival_of
from service.errors import ServiceError
from service.http import docs
from service.http.problems import answer_error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Send
    from starlette.types import Scope as AsgiScope

    from service.access.authenticate import Access

CERTIFICATE_KEY = "tierwise.certificate"  # in an ASGI scope: names in the client's verified certificate

# Probes must work without a secret; the rest tells how to call and nothing about what is served.
OPEN_PATHS: Final = docs.PATHS | {"/livez", "/readyz", "/openapi.json"}
SCOPES: Final = {"/v1/explain": Scope.EXPLAIN}  # every other path: score


class Guard:
    """Pure ASGI: wraps an app. A path that is forgotten here is closed, not open."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            arrival = arrival_of(scope)
            try:
                principal = self._access.authenticate(Headers(scope=scope), scope.get(CERTIFICATE_KEY, ()))
                arrival.principal = principal
                principal.require(SCOPES.get(scope["path"], Scope.SCORE))
            except ServiceError as error:
                await answer_error(error, arrival)(scope, receive, send)
                return
        await self._app(scope, receive, send)
