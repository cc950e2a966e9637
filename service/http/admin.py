"""The admin door, on its own port: metrics and health. Nothing here is for callers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client.exposition import choose_encoder
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.metrics.state import State

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

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


class _OneProcess:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.liveness = gateway.health.liveness
        self.readiness = gateway.health.readiness

    async def metrics(self) -> CollectorRegistry:
        gateway = self._gateway
        return gateway.metrics.registry


def create_admin(gateway: Gateway) -> Starlette:
    """The app around a gateway; one for each."""
    gateway.metrics.registry.register(State(gateway))
    return create_overview(_OneProcess(gateway))


def create_overview(shown: Overview) -> Starlette:
    """The app around anything that has health and metrics."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(await shown.metrics()), headers={"content-type": content_type})

    async def livez(_: Request) -> Response:
        return _report(shown.liveness())

    async def readyz(_: Request) -> Response:
        return _report(shown.readiness())

    return Starlette(routes=[Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)])


def _report(report: HealthReport) -> Response:
    return Response(to_json(report), status_code=200 if report.ok else 503, media_type="application/json")
