"""The admin door, on its own port: metrics and health. Nothing here is for callers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from service.gateway import Gateway
    from service.health import HealthReport


def create_admin(gateway: Gateway) -> Starlette:
    """The app around a gateway."""

    async def metrics(request: Request) -> Response:
        gateway.metrics.observe_state(gateway.health, gateway.pipeline.judge.engine.health())
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(gateway.metrics.registry), headers={"content-type": content_type})

    async def livez(_: Request) -> Response:
        return _report(gateway.health.liveness())

    async def readyz(_: Request) -> Response:
        return _report(gateway.health.readiness())

    return Starlette(routes=[Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)])


def _report(report: HealthReport) -> Response:
    return Response(to_json(report), status_code=200 if report.ok else 503, media_type="application/json")
