"""The gRPC door of a real process: a real port, real signals."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.grpc.relevance import SERVICE
from service.grpc.requests import score_message
from service.grpc.v1.relevance_pb2_grpc import RelevanceStub
from service.schemas import ScoreBody
from tests.service.test_server import SLOW, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.service.test_server import Running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_sigterm_tells_watchers_and_answers_what_is_in_flight(checkpoint: Path) -> None:
    """Health says NOT_SERVING, every accepted call is answered, and the process ends with 0."""

    async def drain(service: Running) -> tuple[list[int], list[int]]:
        target = service.grpc.removeprefix("grpc://")
        message = score_message(ScoreBody.model_validate(SLOW))
        async with grpc.aio.insecure_channel(target) as channel, grpc.aio.insecure_channel(target) as other:
            health: Any = health_pb2_grpc.HealthStub(other)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            told = [(await watch.read()).status]
            while told[-1] != SERVING:
                told.append((await watch.read()).status)
            stub = RelevanceStub(channel)  # type: ignore[no-untyped-call] # generated
            calls = [asyncio.ensure_future(stub.Score(message, timeout=60)) for _ in range(8)]
            await asyncio.sleep(0.15)
            service.process.send_signal(signal.SIGTERM)
            told.append((await watch.read()).status)
            watch.cancel()
            return [len((await call).results) for call in calls], told

    with running(checkpoint) as service:
        answered, told = asyncio.run(asyncio.wait_for(drain(service), 90))
        assert answered == [2] * 8
        assert told[-2:] == [SERVING, NOT_SERVING]
        assert service.process.wait(timeout=30) == 0
