"""What the gRPC door tells whoever asks, without a key: health and reflection.

Their messages have a few bytes, but gRPC takes any up to the one limit for all. So few of them are read at a time, few
wait, and who fills that room is in the way of nobody with a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc.aio
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from service.errors import ServiceError
from service.grpc.failures import code_of
from service.grpc.intake import Intake
from service.grpc.requests import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]

MOST_READ: Final = 8  # messages at a time, of each of the two
MOST_WAITING: Final = 128  # calls, of each
MOST_WATCHES: Final = 1_000  # calls; they stay


class Open:
    """Reads for the two servicers that come with gRPC.

    Args:
        servicer: knows the health.
        service: what reflection tells of, beside the two themselves.
        seconds: for a message to arrive.
    """

    def __init__(self, servicer: health.aio.HealthServicer, service: str, seconds: float) -> None:
        self._health = servicer
        self._watches = 0
        self._reflection = reflection.aio.ReflectionServicer((service, health.SERVICE_NAME, reflection.SERVICE_NAME))
        self._health_intake = Intake(MOST_READ, MOST_WAITING, seconds)
        self._reflection_intake = Intake(MOST_READ, MOST_WAITING, seconds)

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """What a server needs to know of them."""
        told = HealthCheckResponse.SerializeToString
        asking: dict[str, Handler] = {
            "Check": grpc.stream_unary_rpc_method_handler(self._check, response_serializer=told),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, response_serializer=told),
        }
        shown = ServerReflectionResponse.SerializeToString
        looking: dict[str, Handler] = {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._reflect, response_serializer=shown)
        }
        return (
            grpc.method_handlers_generic_handler(health.SERVICE_NAME, asking),
            grpc.method_handlers_generic_handler(reflection.SERVICE_NAME, looking),
        )

    async def _check(self, _: object, context: Context) -> HealthCheckResponse:
        return await self._health.Check(await self._health_request(context), context)

    async def _watch(self, _: object, context: Context) -> None:
        if self._watches >= MOST_WATCHES:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "too many watch already")
        self._watches += 1
        try:
            await self._health.Watch(await self._health_request(context), context)
        finally:
            self._watches -= 1

    async def _health_request(self, context: Context) -> HealthCheckRequest:
        try:
            return parse(HealthCheckRequest, await self._health_intake.only(context))
        except ServiceError as error:
            await context.abort(code_of(error), error.detail)

    async def _reflect(self, _: object, context: Context) -> AsyncIterator[ServerReflectionResponse]:
        async def requests() -> AsyncIterator[ServerReflectionRequest]:
            while (raw := await self._reflection_intake.next(context)) is not None:
                yield parse(ServerReflectionRequest, raw)

        try:
            shown: Any = self._reflection.ServerReflectionInfo(requests(), context)  # its stub takes it for a coroutine
            async for part in shown:
                yield part
        except ServiceError as error:
            await context.abort(code_of(error), error.detail)
