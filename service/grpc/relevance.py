"""The methods of `tierwise.v1.Relevance`: bytes of messages in, bytes of messages out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import grpc

from service.access.principal import Scope
from service.grpc.calls import Calls
from service.grpc.intake import open_intake
from service.grpc.replies import explain_response, response_bytes
from service.grpc.requests import deadline_ms, explain_request, parse, score_request
from service.grpc.stream import Stream
from service.grpc.v1 import relevance_pb2 as pb
from service.limits import ONE_ITEM, check_limits
from service.notes import note
from service.repeats import Repeats

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from service.gateway import Gateway
    from service.grpc.calls import Context, Opened
    from service.request import ScoreRequest

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Relevance"].full_name


class Relevance:
    """Around one gateway. Messages are parsed here and not by gRPC, which has no words for a malformed one.

    gRPC reads the message of a unary method before its handler runs, whoever sent it; that of a streaming one when it
    is asked to. On the wire both are the same, so all methods are streaming ones here.

    Args:
        gateway: what answers.
        leaving: set when the door ends; streams take no more requests then.
    """

    def __init__(self, gateway: Gateway, leaving: asyncio.Event) -> None:
        self._gateway = gateway
        self._leaving = leaving
        self._calls = Calls(gateway)
        self._intake = open_intake(gateway.settings)
        self._repeats = Repeats(self._read)

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server needs to know of the service."""
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Score": grpc.stream_unary_rpc_method_handler(self._score),
            "ScoreStream": grpc.stream_stream_rpc_method_handler(self._score_stream),
            "Explain": grpc.stream_unary_rpc_method_handler(self._explain),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _score(self, _: AsyncIterator[bytes], context: Context) -> bytes:
        async def answer(opened: Opened) -> bytes:
            arrival = opened.arrival
            raw = await self._intake.only(context)
            started = time.monotonic()
            with opened.visit(self._gateway.admission, len(raw)):
                asked, asked_ms = self._repeats.read(raw, opened.caller)
                arrival.timings_ms.add("parse", started)
                pipeline = self._gateway.serving(asked.model)
                reply = await pipeline.score(asked, opened.call(asked_ms))
                note(arrival.notes, asked, reply)
                return response_bytes(asked, reply, pipeline.judge.tiers)

        return await self._calls.serve(f"/{SERVICE}/Score", Scope.SCORE, context, answer)

    def _read(self, raw: bytes, tenant: str) -> tuple[ScoreRequest, float | None]:
        message = parse(pb.ScoreRequest, raw)
        asked = score_request(message, tenant)
        check_limits(asked, self._gateway.settings.limits)
        return asked, deadline_ms(message)

    async def _explain(self, _: AsyncIterator[bytes], context: Context) -> bytes:
        async def answer(opened: Opened) -> bytes:
            arrival = opened.arrival
            raw = await self._intake.only(context)
            started = time.monotonic()
            with opened.visit(self._gateway.admission, len(raw)):
                message = parse(pb.ExplainRequest, raw)
                asked = explain_request(message)
                check_limits(asked, self._gateway.settings.limits, ONE_ITEM)
                arrival.timings_ms.add("parse", started)
                pipeline = self._gateway.serving(asked.model)
                reply = await pipeline.explain(asked, opened.call(deadline_ms(message)))
                note(arrival.notes, asked, reply)
                return explain_response(reply, pipeline.judge.tiers).SerializeToString()

        return await self._calls.serve(f"/{SERVICE}/Explain", Scope.EXPLAIN, context, answer)

    async def _score_stream(self, requests: AsyncIterator[bytes], context: Context) -> None:
        path = f"/{SERVICE}/ScoreStream"

        async def answer(opened: Opened) -> None:
            stream = Stream(
                self._gateway, calls=self._calls, path=path, opened=opened, intake=self._intake, write=context.write
            )
            await stream.run(requests, self._leaving)

        await self._calls.serve(path, Scope.SCORE, context, answer)
