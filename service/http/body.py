"""Reads the body of a request, never more of it than the limit and never longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from service.errors import BodyTooLargeError, MediaTypeError

if TYPE_CHECKING:
    from starlette.requests import Request

SLOW_KEY = "tierwise.slow"  # in an ASGI scope: the SlowRequestError that the protocol has answered with already


async def read_body(request: Request, limit: int) -> bytes:
    """All bytes of the body.

    Raises:
        MediaTypeError: it is declared as something else than JSON, or compressed.
        BodyTooLargeError: as soon as the limit is passed, whatever `content-length` said.
        SlowRequestError: the connection was cut since the body did not come in time (service.http.protocol).
        ClientDisconnect: the caller left.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise MediaTypeError(f"send content-type: application/json, not {media_type[:80]}")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise MediaTypeError(f"send the body uncompressed, not as {encoding[:80]}")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise BodyTooLargeError(f"send at most {limit} bytes, these are {declared}")
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise BodyTooLargeError(f"send at most {limit} bytes")
            parts.append(part)
    except ClientDisconnect:
        if slow := request.scope.get(SLOW_KEY):
            raise slow from None
        raise
    return parts[0] if len(parts) == 1 else b"".join(parts)


def declared_size(request: Request, limit: int) -> int:
    """Bytes of the body as its caller declares them; the limit, where nothing or nonsense is declared."""
    declared = request.headers.get("content-length", "")
    return min(int(declared), limit) if declared.isdecimal() else limit
