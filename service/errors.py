"""One error tree, and the wire meaning of every failure in one place: HTTP status, gRPC code, retryable or not.

ServiceError                   500 INTERNAL             a defect; the log has the traceback
├── MalformedHeadError         400 INVALID_ARGUMENT     what came is not HTTP
├── MalformedBodyError         400 INVALID_ARGUMENT     not JSON, not UTF-8, a key twice, nested too deep
├── InvalidRequestError        422 INVALID_ARGUMENT     well-formed, but a field is wrong; `errors` names each
├── UnauthenticatedError       401 UNAUTHENTICATED      no key or certificate that is known here
├── ForbiddenError             403 PERMISSION_DENIED    it is known and lacks the scope
├── NotFoundError              404 NOT_FOUND            no such path or model
├── MethodNotAllowedError      405 UNIMPLEMENTED        the path takes another method
├── SlowRequestError           408 CANCELLED            the body did not come in time
├── BodyTooLargeError          413 RESOURCE_EXHAUSTED   more bytes than the configured limit
├── MediaTypeError             415 INVALID_ARGUMENT     the body is not plain JSON
├── QuotaError                 429 RESOURCE_EXHAUSTED   the caller is over its own quota, whatever the load
├── HeadTooLargeError          431 RESOURCE_EXHAUSTED   more or longer headers than the configured limits
├── OverloadedError            503 UNAVAILABLE          no capacity before the deadline; nothing was computed
├── NotReadyError              503 UNAVAILABLE          starting, draining, hung or failing its self-test
└── DeadlineError              504 DEADLINE_EXCEEDED    the deadline passed before anything was scored

Lower layers raise their own errors (models.errors); `from_model` maps each to the most specific class here. Failures of
knowledge retrieval never reach a caller as an error: the answer goes on without a chunk and says so in `degraded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from models.errors import EngineBusyError, EngineUnavailableError, PromptTooLongError, UnreadableQueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.errors import ModelError


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing to change in a request.

    Attributes:
        pointer: JSON pointer as a URI fragment, e.g. `#/items/3/title`; empty for a header.
        detail: what to change.
    """

    pointer: str
    detail: str


class ServiceError(Exception):
    """Base of every failure that a caller sees; on its own it means a defect of ours."""

    status: ClassVar[int] = 500
    grpc: ClassVar[str] = "INTERNAL"
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, errors: Sequence[FieldError] = (), retry_after_ms: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_ms = retry_after_ms


class MalformedHeadError(ServiceError):
    """What came is not HTTP; the connection is closed."""

    status, grpc, code, title = 400, "INVALID_ARGUMENT", "malformed-head", "This is not an HTTP request"


class MalformedBodyError(ServiceError):
    """The body is not one JSON document in UTF-8 with unique keys and bounded depth."""

    status, grpc, code, title = 400, "INVALID_ARGUMENT", "malformed-body", "The body is not valid JSON"


class InvalidRequestError(ServiceError):
    """A field of the request is wrong; `errors` names every one that was found."""

    status, grpc, code, title = 422, "INVALID_ARGUMENT", "invalid-request", "The request is not valid"


class UnauthenticatedError(ServiceError):
    """No key or certificate that is known here."""

    status, grpc, code, title = 401, "UNAUTHENTICATED", "unauthenticated", "Unauthenticated"


class ForbiddenError(ServiceError):
    """The key or certificate is known and lacks the scope."""

    status, grpc, code, title = 403, "PERMISSION_DENIED", "forbidden", "Forbidden"


class NotFoundError(ServiceError):
    """No such path or model."""

    status, grpc, code, title = 404, "NOT_FOUND", "not-found", "Not found"


class MethodNotAllowedError(ServiceError):
    """The path exists and takes another method."""

    status, grpc, code, title = 405, "UNIMPLEMENTED", "method-not-allowed", "Method not allowed"

    def __init__(self, detail: str, *, allow: str) -> None:
        super().__init__(detail)
        self.allow = allow


class SlowRequestError(ServiceError):
    """The body did not come in time; the connection is closed."""

    status, grpc, code, title = 408, "CANCELLED", "slow-request", "The request came too slowly"


class BodyTooLargeError(ServiceError):
    """More bytes than the configured limit; the rest was not read."""

    status, grpc, code, title = 413, "RESOURCE_EXHAUSTED", "body-too-large", "The body is too large"


class HeadTooLargeError(ServiceError):
    """More or longer headers than the configured limits; the connection is closed."""

    status, grpc, code, title = 431, "RESOURCE_EXHAUSTED", "head-too-large", "The headers are too large"


class MediaTypeError(ServiceError):
    """The body is not sent as plain JSON."""

    status, grpc, code, title = 415, "INVALID_ARGUMENT", "unsupported-media-type", "The body must be JSON"


class QuotaError(ServiceError):
    """The caller is over its own quota, whatever the load; a later try may succeed."""

    status, grpc, code, title = 429, "RESOURCE_EXHAUSTED", "quota", "Quota used up"
    retryable = True


class OverloadedError(ServiceError):
    """No capacity before the deadline; nothing was computed, and a later try may succeed."""

    status, grpc, code, title = 503, "UNAVAILABLE", "overloaded", "Overloaded"
    retryable = True


class NotReadyError(ServiceError):
    """Starting, draining, hung or failing the self-test; another replica or a later try may succeed."""

    status, grpc, code, title = 503, "UNAVAILABLE", "not-ready", "Not ready"
    retryable = True


class DeadlineError(ServiceError):
    """The deadline passed before anything was scored."""

    status, grpc, code, title = 504, "DEADLINE_EXCEEDED", "deadline-exceeded", "Deadline exceeded"
    retryable = True


def invalid(pointer: str, detail: str) -> InvalidRequestError:
    """An InvalidRequestError about a single field."""
    return InvalidRequestError(
        f"{pointer.removeprefix('#/') or 'request'}: {detail}", errors=(FieldError(pointer, detail),)
    )


def by_code(code: str) -> type[ServiceError]:
    """The class of a code on the wire, for clients; the base for one that is not known here."""
    kinds = ServiceError.__subclasses__()
    return next((k for k in kinds if k.code == code and k.__init__ is ServiceError.__init__), ServiceError)


def from_model(error: ModelError) -> ServiceError:
    """What a failure below means on the wire; raise the result `from` the original."""
    match error:
        case EngineBusyError():
            return OverloadedError(f"the engine has no capacity before the deadline: {error}", retry_after_ms=1000)
        case EngineUnavailableError():
            return NotReadyError(f"the engine is unavailable: {error}", retry_after_ms=1000)
        case PromptTooLongError():
            return InvalidRequestError(f"shorten the query, the context or the item: {error}")
        case UnreadableQueryError():
            return invalid("#/query", str(error))
        case _:
            return ServiceError("the judge failed; the log of the service has the reason under this request's id")


def problem(error: ServiceError, request_id: str) -> dict[str, Any]:
    """RFC 9457 problem details with our extension members."""
    body: dict[str, Any] = {
        "type": f"urn:tierwise:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": f"urn:tierwise:request:{request_id}",
        "code": error.code,
        "retryable": error.retryable,
    }
    if error.retry_after_ms is not None:
        body["retry_after_ms"] = error.retry_after_ms
    if error.errors:
        body["errors"] = [{"pointer": e.pointer, "detail": e.detail} for e in error.errors]
    return body
