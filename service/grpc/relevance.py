"""The methods of `tierwise.v1.Relevance`: bytes of a message in, bytes of a message out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import grpc

from service.access.principal import Scope
from service.grpc.calls import Calls
from service.grpc.replies import explain_response, score_response
from service.grpc.requests import explain_request, parse, score_request
from service.grpc.v1 import relevance_pb2 as pb
from service.limits import ONE_ITEM, check_limits
from service.record import record

if TYPE_CHECKING:
    from service.gateway import Gateway
    from service.grpc.calls import Context, Opened

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Relevance"].full_name


class Relevance:
    """Around one gateway. Messages are parsed here and not by gRPC, which has no words for a malformed one."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._calls = Calls(gateway)
        self._tiers = [tier.name for tier in gateway.pipeline.judge.manifest.tiers]

    def handler(self) -> grpc.GenericRpcHandler:
        """What a server needs to know of the service."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        del stream
        return grpc.method_handlers_generic_handler(
            SERVICE, {"Score": unary(self._score), "Explain": unary(self._explain)}
        )

    async def _score(self, raw: bytes, context: Context) -> bytes:
        async def answer(opened: Opened) -> bytes:
            started = time.monotonic()
            message = parse(pb.ScoreRequest, raw)
            asked = score_request(message)
            check_limits(asked, self._gateway.settings.limits)
            opened.arrival.timings_ms["parse"] = round((time.monotonic() - started) * 1000.0, 3)
            call = opened.call(message.deadline_ms if message.HasField("deadline_ms") else None)
            reply = await self._gateway.pipeline.score(asked, call)
            record(opened.arrival.notes, asked, reply)
            return score_response(reply, self._tiers).SerializeToString()

        return await self._calls.serve(f"/{SERVICE}/Score", Scope.SCORE, context, answer)

    async def _explain(self, raw: bytes, context: Context) -> bytes:
        async def answer(opened: Opened) -> bytes:
            message = parse(pb.ExplainRequest, raw)
            asked = explain_request(message)
            check_limits(asked, self._gateway.settings.limits, ONE_ITEM)
            call = opened.call(message.deadline_ms if message.HasField("deadline_ms") else None)
            reply = await self._gateway.pipeline.explain(asked, call)
            record(opened.arrival.notes, asked, reply)
            return explain_response(reply, self._tiers).SerializeToString()

        return await self._calls.serve(f"/{SERVICE}/Explain", Scope.EXPLAIN, context, answer)
