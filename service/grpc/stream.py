"""One ScoreStream call: requests are answered side by side, each with results as its items are done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from service.arrival import arrive_within
from service.errors import NotReadyError, invalid
from service.grpc.calls import CLIENT_GONE, as_service_error
from service.grpc.failures import status_of
from service.grpc.replies import item_results, score_summary
from service.grpc.requests import deadline_ms, parse, score_request
from service.grpc.v1 import relevance_pb2 as pb
from service.limits import check_limits
from service.notes import note

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from service.gateway import Gateway
    from service.grpc.calls import Calls, Opened
    from service.grpc.intake import Intake
    from service.reply import ItemResult

MOST_IN_FLIGHT: Final = 32  # requests of one stream; the next one is read when one of them is answered


class Stream:
    """Reads, answers and writes. What a request is refused for goes back under its id; the others go on.

    Args:
        gateway: what answers.
        calls: takes note of each request that is done.
        path: the method's.
        opened: the call.
        intake: bounds how many callers may send.
        write: sends one message to the caller.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        calls: Calls,
        path: str,
        opened: Opened,
        intake: Intake,
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._gateway = gateway
        self._calls = calls
        self._path = path
        self._opened = opened
        self._intake = intake
        self._write = write
        self._writing = asyncio.Lock()  # gRPC takes one message at a time
        self._room = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._in_flight: set[str] = set()
        self._count = 0

    async def run(self, requests: AsyncIterator[bytes], leaving: asyncio.Event) -> None:
        """Answer every request until the caller has no more.

        Raises:
            MalformedBodyError, InvalidRequestError: a message cannot be answered under an id of its own.
            NotReadyError: the door ends; what was read before is answered.
            OverloadedError: too many streams may send already.
        """
        left = asyncio.create_task(leaving.wait(), name="stream-leaving")
        try:
            async with asyncio.TaskGroup() as answers, self._intake.stream():
                while (raw := await self._next(requests, left)) is not None:
                    answers.create_task(self._answer(self._admit(raw)))
                    del raw  # it would be kept until the next one comes
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            left.cancel()
            self._opened.arrival.notes["requests"] = self._count
        if leaving.is_set():
            raise NotReadyError("shutting down; go on with another connection", retry_after_ms=0)

    async def _next(self, requests: AsyncIterator[bytes], left: asyncio.Task[bool]) -> bytes | None:
        """The next message when there is room for it; None when there is none, or when the door ends."""
        await self._room.acquire()
        reading = asyncio.ensure_future(anext(requests, None))
        try:
            await asyncio.wait([reading, left], return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            reading.cancel()

    def _admit(self, raw: bytes) -> pb.ScoreStreamRequest:
        message = parse(pb.ScoreStreamRequest, raw)
        limit = self._gateway.settings.limits.id_characters
        if not 0 < len(message.id) <= limit:
            raise invalid("#/id", f"name each request with 1 to {limit} characters")
        if message.id in self._in_flight:
            raise invalid("#/id", "a request of this id is in flight on this stream; wait for its end")
        self._in_flight.add(message.id)
        self._count += 1
        return message

    async def _answer(self, message: pb.ScoreStreamRequest) -> None:
        arrival = arrive_within(self._opened.arrival, self._count, self._gateway.tracing)
        status, code = CLIENT_GONE, "CANCELLED"
        try:
            opened = self._opened.within(arrival)
            with opened.visit(self._gateway.admission, message.ByteSize()):
                last = await self._score(message, opened)
            status, code = 200, "OK"
        except Exception as error:  # noqa: BLE001 # the caller learns of every failure, the log of every defect
            failure = as_service_error(error, self._path, arrival)
            status, code = failure.status, failure.grpc
            last = pb.ScoreStreamResponse(id=message.id, error=status_of(failure, arrival.id))
        finally:
            self._calls.record(self._path, arrival, status, code)
            self._in_flight.discard(message.id)
            self._room.release()
        await self._send(last)

    async def _score(self, message: pb.ScoreStreamRequest, opened: Opened) -> pb.ScoreStreamResponse:
        """Score one request and send its results; returns the last part of its answer."""
        arrival = opened.arrival
        asked = score_request(message.request, opened.caller.tenant)
        if asked.top_n is not None:
            raise invalid("#/top_n", "leave it out on a stream: results come as they are done, not best first")
        check_limits(asked, self._gateway.settings.limits)
        arrival.timings_ms.add("parse", arrival.started)
        call = opened.call(deadline_ms(message.request))
        pipeline = self._gateway.serving(asked.model)
        parts: asyncio.Queue[Sequence[ItemResult]] = asyncio.Queue()
        sent: set[int] = set()

        async def send_parts() -> None:
            while part := await parts.get():
                sent.update(result.index for result in part)
                await self._send_results(message.id, part)

        sending = asyncio.create_task(send_parts(), name="stream-parts")
        try:
            reply = await pipeline.score(asked, call, tell=parts.put_nowait)
            parts.put_nowait(())
            await sending
        finally:
            sending.cancel()
        await self._send_results(message.id, [r for r in reply.results if r.index not in sent])
        note(arrival.notes, asked, reply)
        return pb.ScoreStreamResponse(id=message.id, done=score_summary(reply, pipeline.judge.tiers))

    async def _send_results(self, name: str, results: Sequence[ItemResult]) -> None:
        if results:
            part = pb.ItemResults(results=item_results(results))
            await self._send(pb.ScoreStreamResponse(id=name, results=part))

    async def _send(self, message: pb.ScoreStreamResponse) -> None:
        async with self._writing:
            await self._write(message.SerializeToString())
