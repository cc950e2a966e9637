"""Liveness and readiness."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service.health import HealthReport
from service.http.route import gateway_of

router = APIRouter(tags=["health"])

_FAILING: dict[int | str, dict[str, Any]] = {
    503: {"model": HealthReport, "description": "a check fails; `checks` names it"}
}


@router.get("/livez", responses=_FAILING, summary="Does the process make progress?")
async def livez(request: Request, response: Response) -> HealthReport:
    """503 when a restart would help: the event loop or the embedded engine stands still."""
    return _with_status(gateway_of(request).health.liveness(), response)


@router.get("/readyz", responses=_FAILING, summary="Should it get traffic?")
async def readyz(request: Request, response: Response) -> HealthReport:
    """503 while starting or draining, when known pairs score wrong, or when the engine hangs."""
    return _with_status(gateway_of(request).health.readiness(), response)


def _with_status(report: HealthReport, response: Response) -> HealthReport:
    response.status_code = 200 if report.ok else 503
    return report
