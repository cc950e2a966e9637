"""Errors as google.rpc statuses (AIP-193), and back for the client. Pure.

Details travel in a header of HTTP/2, and a client refuses headers past 8 KiB: what a caller wrote is cut here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from service.errors import FieldError, by_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from service.errors import ServiceError

DOMAIN: Final = "tierwise"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")
_PARTS: Final = re.compile(r"""\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]|([^.\[]+)""")
_LONGEST: Final = 512  # characters of the message
_LONGEST_FIELD: Final = 160  # characters of one violation's field and of its description
_MOST_VIOLATIONS: Final = 8


def status_of(error: ServiceError, request_id: str) -> Status:
    """A status with every detail of an error."""
    status = Status(code=code_of(error).value[0], message=_cut(error.detail, _LONGEST))
    for detail in _details(error, request_id):
        status.details.add().Pack(detail)
    return status


def code_of(error: ServiceError) -> grpc.StatusCode:
    """The gRPC code of an error."""
    return grpc.StatusCode[error.grpc]


def error_of(status: Status) -> ServiceError | None:
    """The error that a service of ours put into a status, None when another one made it."""
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, bad, retry):
            detail.Unpack(message)
    if info.domain != DOMAIN:
        return None
    after = retry.retry_delay.ToMilliseconds() if retry.HasField("retry_delay") else None
    kind = by_code(info.reason.lower().replace("_", "-"))
    fields = [FieldError(_pointer(v.field), v.description) for v in bad.field_violations]
    return kind(status.message, errors=fields, retry_after_ms=after)


def _details(error: ServiceError, request_id: str) -> Iterator[Message]:
    reason = error.code.upper().replace("-", "_")
    yield error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata={"retryable": str(error.retryable).lower()}
    )
    yield error_details_pb2.RequestInfo(request_id=request_id)
    if error.errors:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_cut(_path(e.pointer), _LONGEST_FIELD), description=_cut(e.detail, _LONGEST_FIELD)
            )
            for e in error.errors[:_MOST_VIOLATIONS]
        ]
        yield error_details_pb2.BadRequest(field_violations=violations)
    if error.retry_after_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        yield error_details_pb2.RetryInfo(retry_delay=delay)


def _path(pointer: str) -> str:
    """A JSON pointer as the path of a protobuf field: `#/items/3/title` -> `items[3].title`."""
    path = ""
    for part in pointer.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if name.isdecimal():
            path += f"[{name}]"
        elif _NAME.fullmatch(name):
            path += f".{name}" if path else name
        else:
            path += f"[{json.dumps(name)}]"
    return path


def _pointer(path: str) -> str:
    """The JSON pointer of a path that `_path` wrote, cut or not."""
    if not path:
        return ""
    parts = []
    for number, quoted, name in _PARTS.findall(path):
        part = json.loads(quoted) if quoted else number or name
        parts.append("/" + part.replace("~", "~0").replace("/", "~1"))
    return "#" + "".join(parts)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
