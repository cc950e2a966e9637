"""Reads the body of a request, never more of it than the limit and never longer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from service.errors import BodyTooLargeError, MediaTypeError, SlowRequestError

if TYPE_CHECKING:
    from starlette.requests import Request


async def read_body(request: Request, limit: int, seconds: float) -> bytes:
    """All bytes of the body.

    Raises:
        MediaTypeError: it is declared as something else than JSON, or compressed.
        BodyTooLargeError: as soon as the limit is passed, whatever `content-length` said.
        SlowRequestError: the whole body did not come in time.
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
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise BodyTooLargeError(f"send at most {limit} bytes")
                parts.append(part)
    except TimeoutError:
        raise SlowRequestError(f"send the whole body within {seconds:g} seconds, {size} bytes came") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def declared_size(request: Request, limit: int) -> int:
    """Bytes of the body as its caller declares them; the limit, where nothing or nonsense is declared."""
    declared = request.headers.get("content-length", "")
    return min(int(declared), limit) if declared.isdecimal() else limit
