"""Callers of both doors who go on until they are refused, and tell what became of each call."""

from __future__ import annotations

import asyncio
from itertools import count, islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import grpc
import httpx

from service.grpc.requests import score_message
from service.grpc.v1 import relevance_pb2 as pb
from service.grpc.v1.relevance_pb2_grpc import RelevanceStub
from service.schemas import ScoreBody
from tests.service.processes import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections import Counter

ON_A_STREAM = 3  # requests in flight
ITS_OWN = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own, as another process would have


async def call_http(address: str, body: dict[str, Any], seen: Counter[str]) -> None:
    """On kept connections. A connection that is refused was not accepted; whatever else fails was."""
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        while True:
            try:
                response = await client.post("/v1/score", json=body)
            except httpx.ConnectError:
                return
            except httpx.HTTPError as error:
                seen[type(error).__name__] += 1
                return
            if response.status_code != httpx.codes.OK:
                seen[response.json()["code"]] += 1
                continue
            closes = response.headers.get("connection") == "close"
            seen["200 and close" if closes else "200"] += 1


async def call_grpc(address: str, body: dict[str, Any], seen: Counter[str]) -> None:
    """One unary call after the other on a channel. UNAVAILABLE was not accepted: the service's own log has to agree."""
    message = score_message(ScoreBody.model_validate(body))
    async with grpc.aio.insecure_channel(address.removeprefix("grpc://"), options=ITS_OWN) as channel:
        stub = RelevanceStub(channel)  # type: ignore[no-untyped-call] # generated
        while True:
            try:
                await stub.Score(message, timeout=PATIENCE_SECONDS)
            except grpc.aio.AioRpcError as error:
                refused = error.code() is grpc.StatusCode.UNAVAILABLE
                seen["unary ended" if refused else f"{error.code()}: {error.details()}"] += 1
                return
            seen["unary"] += 1


async def call_stream(address: str, body: dict[str, Any], seen: Counter[str]) -> None:
    """Requests on one stream, some at a time, until the service ends it."""
    await asyncio.to_thread(
        _stream, address.removeprefix("grpc://"), score_message(ScoreBody.model_validate(body)), seen
    )


def _stream(target: str, message: pb.ScoreRequest, seen: Counter[str]) -> None:
    """Not with grpc.aio: a write there that meets the end of a call throws away what came before it, and its status."""
    names = map(str, count())
    writing: SimpleQueue[str | None] = SimpleQueue()
    for name in islice(names, ON_A_STREAM):
        writing.put(name)
    requests = (pb.ScoreStreamRequest(id=name, request=message) for name in iter(writing.get, None))
    with grpc.insecure_channel(target, options=ITS_OWN) as channel:
        stub = RelevanceStub(channel)  # type: ignore[no-untyped-call] # generated
        try:
            for part in stub.ScoreStream(requests, timeout=PATIENCE_SECONDS):
                if part.WhichOneof("event") == "done":
                    seen["streamed"] += 1
                    writing.put(next(names))
        except grpc.RpcError as error:
            words = f"{error.code()}: {error.details()}"
            seen["stream ended" if words.startswith("StatusCode.UNAVAILABLE: shutting down") else words] += 1
        finally:
            writing.put(None)
