"""The page at /docs: the OpenAPI document for people, without a script or style from anywhere else.

FastAPI's own page loads its scripts from a CDN: blank on a machine that reaches none, and one more party to trust.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

if TYPE_CHECKING:
    from starlette.requests import Request

_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_FILES: Final = {
    "/docs": ("docs.html", "text/html"),
    "/docs.js": ("docs.js", "text/javascript"),
    "/docs.css": ("docs.css", "text/css"),
}
PATHS: Final = frozenset(_FILES)


def routes() -> list[BaseRoute]:
    """The page and what belongs to it."""
    folder = files(__name__)
    return [_route(path, (folder / name).read_bytes(), media_type) for path, (name, media_type) in _FILES.items()]


def _route(path: str, content: bytes, media_type: str) -> Route:
    async def serve(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(path, serve, include_in_schema=False)
