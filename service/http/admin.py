"""The admin door, on its own port: metrics, health, and which keys are in force. Nothing here is for callers.

Metrics and health are for machines of the house and open to whoever reaches the port; what names tenants asks for a
credential with the scope `admin`, unless there are no keys at all.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prometheus_client.exposition import choose_encoder
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.access.principal import Scope
from service.errors import ServiceError
from service.http.problems import problem_response
from service.metrics.state import State
from service.reload import reload
from service.request import Priority

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry

    from service.access.authenticate import Access
    from service.access.roster import CertificateRecord, KeyRecord
    from service.gateway import Gateway
    from service.health import HealthReport


class Overview(Protocol):
    """What the door shows, of one process or of several."""

    def liveness(self) -> HealthReport:
        """Whether a restart would help."""
        ...

    def readiness(self) -> HealthReport:
        """Whether traffic should come."""
        ...

    async def metrics(self) -> CollectorRegistry:
        """What Prometheus reads."""
        ...

    async def reload(self, headers: Mapping[str, str]) -> tuple[bool, object]:
        """Look for a new checkpoint and new knowledge: whether nothing was refused, and what became of each.

        `headers` are those of the request, which is allowed to.
        """
        ...


@dataclass(frozen=True, slots=True)
class Credential:
    """One key or certificate in force, without its hash."""

    credential: str
    tenant: str
    scopes: list[Scope]
    priority: Priority
    expires: dt.date | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is known; null when everyone is. `refused` says why the newest file was not taken, if it was not."""

    credentials: list[Credential] | None
    refused: str | None


class _OneProcess:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.liveness = gateway.health.liveness
        self.readiness = gateway.health.readiness

    async def metrics(self) -> CollectorRegistry:
        gateway = self._gateway
        return gateway.metrics.registry

    async def reload(self, headers: Mapping[str, str]) -> tuple[bool, object]:
        del headers
        found = await reload(self._gateway)
        return found.ok, found


def create_admin(gateway: Gateway) -> Starlette:
    """The app around a gateway; one for each."""
    gateway.metrics.registry.register(State(gateway))
    return create_overview(_OneProcess(gateway), gateway.access)


def create_overview(shown: Overview, access: Access) -> Starlette:
    """The app around anything that has health and metrics, and the credentials that are in force beside it."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(await shown.metrics()), headers={"content-type": content_type})

    async def livez(_: Request) -> Response:
        return _report(shown.liveness())

    async def readyz(_: Request) -> Response:
        return _report(shown.readiness())

    def refusal(request: Request) -> Response | None:
        try:
            access.authenticate(request.headers).require(Scope.ADMIN)
        except ServiceError as error:
            return problem_response(error, uuid.uuid4().hex)
        return None

    async def reload_all(request: Request) -> Response:
        if refused := refusal(request):
            return refused
        ok, found = await shown.reload(request.headers)
        return Response(to_json(found), status_code=200 if ok else 409, media_type="application/json")

    async def keys(request: Request) -> Response:
        if refused := refusal(request):
            return refused
        await asyncio.to_thread(access.refresh)
        return Response(to_json(_credentials(access)), media_type="application/json")

    endpoints = {"/metrics": metrics, "/livez": livez, "/readyz": readyz, "/keys": keys}
    routes = [Route(path, endpoint) for path, endpoint in endpoints.items()]
    return Starlette(routes=[*routes, Route("/admin/reload", reload_all, methods=["POST"])])


def _credentials(access: Access) -> Credentials:
    if access.roster is None:
        return Credentials(None, None)
    records: list[KeyRecord | CertificateRecord] = [*access.roster.keys, *access.roster.certificates]
    known = [Credential(r.credential, r.tenant, sorted(r.scopes), r.priority, r.expires) for r in records]
    return Credentials(known, access.refused)


def _report(report: HealthReport) -> Response:
    return Response(to_json(report), status_code=200 if report.ok else 503, media_type="application/json")
