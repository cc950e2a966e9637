"""The HTTP door as one ASGI app around a gateway."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from service.errors import ServiceError
from service.http import docs, native, rerank, status
from service.http.access import AccessLayer
from service.http.guard import OPEN_PATHS, Guard
from service.http.problems import PROBLEM_SCHEMA, on_http_exception, on_service_error

if TYPE_CHECKING:
    from service.gateway import Gateway
    from service.settings import Limits

DESCRIPTION = """How relevant is each of these items to this query? One forward pass of a label-first model per item,
helped by at most one retrieved chunk of knowledge per query. Errors are RFC 9457 problems that say what to change."""


def create_app(gateway: Gateway) -> FastAPI:
    """The app. It owns nothing: the gateway is opened and closed by who calls this."""
    app = FastAPI(
        title="Tierwise",
        version=version("tierwise"),
        description=DESCRIPTION,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        routes=docs.routes(),
        exception_handlers={ServiceError: on_service_error, HTTPException: on_http_exception},
    )
    app.state.gateway = gateway
    for part in (native.router, native.plain, rerank.router, status.router):
        app.include_router(part)
    app.add_middleware(Guard, access=gateway.access)
    app.add_middleware(AccessLayer, observe=gateway.metrics.answered, tracing=gateway.tracing)
    document: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not document:
            document.update(FastAPI.openapi(app))
            document["components"]["schemas"]["Problem"] = PROBLEM_SCHEMA
            _show_keys(document)
            _show_limits(document["components"]["schemas"], gateway.settings.limits)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend the document
    return app


def _show_keys(document: dict[str, Any]) -> None:
    """Say how a key is sent, and where none is needed."""
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "`tw_<id>_<secret>`"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    document["security"] = [{"bearer": []}, {"header": []}, {}]  # none: a door without keys, or a client certificate
    for path in OPEN_PATHS & document["paths"].keys():
        for operation in document["paths"][path].values():
            operation["security"] = []


def _show_limits(schemas: dict[str, Any], limits: Limits) -> None:
    """Write the configured limits where a client's generator looks for them."""
    for name in ("ScoreBody", "ExplainBody", "JinaRerankBody", "CohereRerankBody"):
        properties = schemas[name]["properties"]
        properties["query"]["maxLength"] = limits.query_characters
        for items in ("items", "documents"):
            if items in properties:
                properties[items]["maxItems"] = limits.items
    schemas["ItemBody"]["properties"]["id"]["maxLength"] = limits.id_characters
    schemas["OwnContextBody"]["properties"]["text"]["maxLength"] = limits.context_characters
