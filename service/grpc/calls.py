"""What every call of the gRPC door has around it: id, caller, deadline, status details, one log line."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn

from models.deadline import Deadline
from service.access.tls import names_in_properties
from service.arrival import Arrival, arrive
from service.errors import ServiceError
from service.gate import deadline_of, header_budgets
from service.grpc.failures import code_of, status_of
from service.request import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import TypeAlias, TypeVar

    import grpc.aio

    from service.access.principal import Scope
    from service.admission.admission import Admission
    from service.gateway import Gateway
    from service.request import Caller

    Answer = TypeVar("Answer")
    Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]

log = logging.getLogger("tierwise.access")

DETAILS_KEY: Final = "grpc-status-details-bin"
CLIENT_GONE: Final = 499  # as the HTTP door logs a caller that left


@dataclass(frozen=True, slots=True)
class Opened:
    """A call that may go on, or one request of a call that brings several.

    Attributes:
        arrival: its id, start, caller and notes.
        deadline: the caller's own, of the whole call.
        budget_ms: for each request, whatever the caller allows.
        identify: notes who sent a request, by what is known now.
    """

    arrival: Arrival
    deadline: Deadline
    budget_ms: float
    identify: Callable[[Arrival], None]

    def within(self, arrival: Arrival) -> Opened:
        """One request of the call. Keys and quotas may have changed since the call began.

        Raises:
            UnauthenticatedError, ForbiddenError: the credential is not good any more.
        """
        self.identify(arrival)
        return replace(self, arrival=arrival)

    def visit(self, admission: Admission, size: int) -> AbstractContextManager[None]:
        """The time that one request of so many bytes is in the house; see `Admission.visit`."""
        return admission.visit(self.caller, size, self._latest(self.budget_ms))

    def call(self, asked_ms: float | None) -> Call:
        """What surrounds the request: its deadline is the earliest that anybody asks for."""
        arrival = self.arrival
        deadline = self._latest(self.budget_ms if asked_ms is None else min(self.budget_ms, asked_ms))
        return Call(arrival.id, deadline, arrival.started, arrival.timings_ms, self.caller)

    def _latest(self, budget_ms: float) -> Deadline:
        return min(self.deadline, deadline_of(self.arrival.started, [budget_ms]))

    @property
    def caller(self) -> Caller:
        """Who sent it."""
        principal = self.arrival.principal
        assert principal is not None  # noqa: S101 # a call is opened for a known caller
        return principal.caller


class Calls:
    """Opens calls and closes them, whatever happens in between."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def serve(
        self, path: str, scope: Scope, context: Context, answer: Callable[[Opened], Awaitable[Answer]]
    ) -> Answer:
        """Answer one call; no exception but cancellation gets past it that the caller does not understand."""
        metadata = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
        arrival = arrive(metadata, self._gateway.tracing)
        trace = (("x-trace-id", arrival.trace),) if arrival.trace else ()
        context.set_trailing_metadata((("x-request-id", arrival.id), *trace))

        def identify(arrival: Arrival) -> None:
            arrival.principal = self._gateway.access.authenticate(metadata, _certificate(context))
            arrival.principal.require(scope)

        try:
            identify(arrival)
            self._gateway.health.check_tested()
            deadline = self._deadline(arrival, metadata, context)
            answered = await answer(Opened(arrival, deadline, self._gateway.settings.deadline_ms, identify))
        except asyncio.CancelledError:
            self.record(path, arrival, CLIENT_GONE, "CANCELLED")
            raise
        except Exception as error:  # noqa: BLE001 # the caller learns of every failure, the log of every defect
            failure = as_service_error(error, path, arrival)
            self.record(path, arrival, failure.status, failure.grpc)
            await _abort(context, failure, arrival.id)
        self.record(path, arrival, 200, "OK")
        return answered

    def record(self, path: str, arrival: Arrival, status: int, code: str) -> None:
        """Count and log one request that is done; `status` is what HTTP would say."""
        seconds = time.monotonic() - arrival.started
        self._gateway.metrics.answered(path, status, seconds, door="grpc", tenant=arrival.tenant)
        fields = arrival.line(seconds, method="GRPC", path=path, status=status, grpc=code)
        log.info("request", extra={"fields": fields})
        if self._gateway.tracing is not None and arrival.span is not None:
            facts = {"rpc.system": "grpc", "rpc.method": path.lstrip("/"), "rpc.response.status_code": code}
            self._gateway.tracing.end(arrival.span, arrival, path, status, facts)

    def _deadline(self, arrival: Arrival, metadata: Mapping[str, str], context: Context) -> Deadline:
        budgets = header_budgets(metadata)
        if (seconds := context.time_remaining()) is not None:
            milliseconds = max(0.0, seconds * 1000.0)
            # A gRPC caller hears nothing after its deadline, so a partial answer has to leave before it.
            budgets.append(milliseconds - min(self._gateway.settings.grpc_reserve_ms, milliseconds * 0.1))
        return deadline_of(arrival.started, budgets) if budgets else Deadline.never()


def as_service_error(error: Exception, path: str, arrival: Arrival) -> ServiceError:
    """What the caller is told of a failure; a defect goes to the log. Takes note of it for the request's own line."""
    if not isinstance(error, ServiceError):
        log.error("a defect", exc_info=error, extra={"fields": {"id": arrival.id, "path": path}})
        error = ServiceError("a defect of the service; its log has the reason under this request's id")
    arrival.notes["code"] = error.code
    arrival.notes["detail"] = error.detail
    return error


async def _abort(context: Context, error: ServiceError, request_id: str) -> NoReturn:
    status = status_of(error, request_id)
    trailing = (("x-request-id", request_id), (DETAILS_KEY, status.SerializeToString()))
    await context.abort(code_of(error), status.message, trailing)


def _certificate(context: Context) -> Iterator[str]:
    """Names in the client certificate that TLS verified; looked up only if somebody wants them."""
    yield from names_in_properties(context.auth_context())
