"""Errors as `application/problem+json` (RFC 9457), and what OpenAPI says about them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service import errors
from service.arrival import arrival_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from service.arrival import Arrival

MEDIA_TYPE = "application/problem+json"

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457 problem details; `detail` and `errors` say what to change.",
    "required": ["type", "title", "status", "detail", "instance", "code", "retryable"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "examples": ["urn:tierwise:problem:invalid-request"]},
        "title": {"type": "string", "examples": ["The request is not valid"]},
        "status": {"type": "integer", "examples": [422]},
        "detail": {"type": "string", "examples": ["items/3/title: write a title; this one has no visible character"]},
        "instance": {"type": "string", "examples": ["urn:tierwise:request:1f0c"]},
        "code": {"type": "string", "examples": ["invalid-request"]},
        "retryable": {"type": "boolean", "description": "whether the same request may succeed later"},
        "retry_after_ms": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "additionalProperties": False,
                "properties": {
                    "pointer": {"type": "string", "examples": ["#/items/3/title"]},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}


def documented(*kinds: type[errors.ServiceError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the errors that a route can answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    by_status: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        meaning = (kind.__doc__ or kind.title).partition("\n")[0]
        entry = by_status.setdefault(kind.status, {"description": "", "content": content})
        entry["description"] = f"{entry['description']} `{kind.code}`: {meaning}".strip()
    return by_status


def problem_response(error: errors.ServiceError, request_id: str) -> Response:
    """The response for one error."""
    headers = {}
    if error.retry_after_ms is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_ms / 1000))
    match error:
        case errors.MethodNotAllowedError():
            headers["allow"] = error.allow
        case errors.UnauthenticatedError():
            headers["www-authenticate"] = 'Bearer realm="tierwise"'
        case errors.SlowRequestError():
            headers["connection"] = "close"
    content = to_json(errors.problem(error, request_id))
    return Response(content, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


def answer_error(error: errors.ServiceError, arrival: Arrival) -> Response:
    """The response for one error, which the request's log line names."""
    arrival.notes["code"] = error.code
    arrival.notes["detail"] = error.detail
    return problem_response(error, arrival.id)


async def on_service_error(request: Request, error: Exception) -> Response:
    """Exception handler of the app for our own tree."""
    assert isinstance(error, errors.ServiceError)  # noqa: S101 # registered for this class alone
    return answer_error(error, arrival_of(request.scope))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Exception handler of the app for what the router raises: unknown paths and methods."""
    assert isinstance(error, HTTPException)  # noqa: S101 # registered for this class alone
    ours: errors.ServiceError
    match error.status_code:
        case 404:
            ours = errors.NotFoundError(f"there is nothing at {request.url.path}; see /openapi.json")
        case 405:
            allow = (error.headers or {}).get("allow") or (error.headers or {}).get("Allow") or ""
            ours = errors.MethodNotAllowedError(f"use {allow} here", allow=allow)
        case _:
            ours = errors.ServiceError(str(error.detail))
    return await on_service_error(request, ours)
