"""The client, over both protocols, against the real doors and against servers that fail."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from models.engines.port import ItemStatus
from service import errors
from service.access.keys import key_hash, key_id, new_key
from service.client import Client, Item, RetryBudget, UnreachableError
from service.grpc.door import GrpcDoor
from service.http.app import create_app
from service.sockets import listen_on, reserve
from tests.service.conftest import FakeKnowledge, OverlapEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from tests.service.conftest import Door

    OpenDoor = Callable[..., AbstractAsyncContextManager[Door]]
    OpenService = Callable[..., AbstractAsyncContextManager[tuple[str, Door]]]

ITEMS = [Item(id="no", title="wxyz"), Item(id="yes", title="abcd", attributes={"size": 2, "new": True})]


@pytest.fixture(params=["http", "grpc"])
def open_service(request: pytest.FixtureRequest, open_door: OpenDoor) -> OpenService:
    """Serve on a real port over each protocol; yields the url. The arguments of `open_door`."""

    @asynccontextmanager
    async def open_(*args: Any, **settings: object) -> AsyncIterator[tuple[str, Door]]:
        async with open_door(*args, **settings) as door:
            if request.param == "grpc":
                with reserve("grpc_port", "127.0.0.1", 0) as port:
                    server = GrpcDoor(door.gateway, port)
                    serving = asyncio.create_task(server.serve())
                    yield server.address, door
                    server.abort()
                    await serving
            else:
                with listen_on("http_port", "127.0.0.1", 0) as listening:
                    app = create_app(door.gateway)
                    http = uvicorn.Server(uvicorn.Config(app, lifespan="off", ws="none", log_config=None))
                    serving = asyncio.create_task(http.serve(sockets=[listening]))
                    yield f"http://127.0.0.1:{listening.getsockname()[1]}", door
                    http.should_exit = http.force_exit = True
                    await serving

    return open_


@asynccontextmanager
async def answering(
    answer: Callable[[int], tuple[int, dict[str, str], bytes]],
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """An HTTP server that answers its nth request as told; yields its url and the requests."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            seen.append(head + await reader.readexactly(length))
            status, headers, body = answer(len(seen))
            lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    serving: set[asyncio.Task[None]] = set()

    async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client is done, or gave up
            try:
                await serve(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_server(until_gone, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    await asyncio.gather(*serving)


def refused(error: errors.ServiceError) -> tuple[int, dict[str, str], bytes]:
    """An answer of the service that refuses."""
    return error.status, {}, json.dumps(errors.problem(error, "id")).encode()


async def failure(call: Awaitable[Any]) -> errors.ServiceError:
    """The error of a call."""
    with pytest.raises(errors.ServiceError) as raised:
        await call
    return raised.value


async def test_scores_and_explains(open_service: OpenService) -> None:
    """Replies are the service's own values, whole and typed, under the caller's id."""
    async with (
        open_service(OverlapEngine(rationale=(30, 31)), FakeKnowledge(), deadline_ms=60_000) as (url, _),
        Client(url, deadline_ms=60_000) as client,
    ):
        reply = await client.score("abcd", ITEMS, request_id="mine", top_n=1)
        assert reply.id == "mine"
        assert [(r.id, r.index, r.status) for r in reply.results] == [("yes", 1, ItemStatus.OK)]
        assert reply.context is not None
        assert sum((reply.results[0].probabilities or {}).values()) == pytest.approx(1.0, abs=1e-5)
        assert (await client.score("abcd", ITEMS, context="none")).context is None
        own = (await client.score("abcd", ITEMS, context="a text")).context
        assert own is not None
        assert own.source == "caller"
        explained = await client.explain("abcd", ITEMS[1])
        assert explained.result.id == "yes"
        assert explained.text


async def test_errors_are_the_services_own(open_service: OpenService) -> None:
    """The class, the fields and the text say what to change; nothing is tried twice that cannot succeed."""
    async with open_service(limits={"items": 1}) as (url, door), Client(url, deadline_ms=60_000) as client:
        error = await failure(client.score("abcd", ITEMS))
        assert type(error) is errors.InvalidRequestError
        assert [e.pointer for e in error.errors] == ["#/items"]
        assert not door.engine.calls
        with pytest.raises(ValueError, match="query"):
            await client.score("", ITEMS[:1])


async def test_a_key_is_sent(open_service: OpenService) -> None:
    """With the key there is an answer, without it there is not."""
    key = new_key()
    record = {"id": key_id(key), "sha256": key_hash(key), "tenant": "shop", "scopes": ["score"]}
    async with open_service(access={"keys": json.dumps({"keys": [record]})}, deadline_ms=60_000) as (url, _):
        async with Client(url, api_key=key, deadline_ms=60_000) as client:
            assert (await client.score("abcd", ITEMS)).results
        async with Client(url, deadline_ms=60_000) as client:
            assert type(await failure(client.score("abcd", ITEMS))) is errors.UnauthenticatedError


async def test_a_deadline_ends_the_call(open_service: OpenService) -> None:
    """The caller waits for no longer than it said, whatever the service does."""
    async with (
        open_service(OverlapEngine(hang=True), deadline_ms=600_000, engine_grace_ms=600_000) as (url, _),
        Client(url) as client,
    ):
        started = time.monotonic()
        assert type(await failure(client.score("abcd", ITEMS, deadline_ms=300))) is errors.DeadlineError
        assert time.monotonic() - started < 10


async def test_the_service_is_told_what_is_left(open_service: OpenService) -> None:
    """The engine's deadline is inside the caller's."""
    seen: list[float] = []

    class Noting(OverlapEngine):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(args[2].remaining())
            return await super().score(*args, **kwargs)

    async with open_service(Noting(), deadline_ms=3_600_000) as (url, _), Client(url) as client:
        seen.clear()
        await client.score("abcd", ITEMS, deadline_ms=50_000)
    assert 10 < seen[0] < 50


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_nobody_there_is_unreachable(scheme: str) -> None:
    """A refused connection is told apart from an error of the service, and may be tried again."""
    with listen_on("http_port", "127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
    async with Client(f"{scheme}://127.0.0.1:{port}", deadline_ms=5_000) as client:
        assert type(await failure(client.score("abcd", ITEMS))) is UnreachableError


async def test_what_may_succeed_later_is_tried_again(open_service: OpenService) -> None:
    """An engine that fails once costs the caller a pause, not the answer; the id stays the same."""

    class FailsOnce(OverlapEngine):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            if self.armed and not self.calls:
                self.calls.append(((), []))
                raise errors.NotReadyError("not yet", retry_after_ms=10)
            return await super().score(*args, **kwargs)

    async with open_service(FailsOnce(), deadline_ms=60_000) as (url, door), Client(url, deadline_ms=60_000) as client:
        assert (await client.score("abcd", ITEMS)).results
        assert len(door.engine.calls) == 2


async def test_retries_end_with_their_budget() -> None:
    """When everything fails, a tenth more is sent than was asked for, and one."""
    overloaded = refused(errors.OverloadedError("full", retry_after_ms=1))
    async with answering(lambda _: overloaded) as (url, seen), Client(url, deadline_ms=60_000) as client:
        for _ in range(40):
            assert type(await failure(client.score("abcd", ITEMS))) is errors.OverloadedError
        assert 41 <= len(seen) <= 40 + 4 + 1


async def test_the_pause_that_the_service_asks_for_is_kept() -> None:
    """A retry comes no sooner; when there is no time for it the error is told at once."""
    answers = [refused(errors.OverloadedError("full", retry_after_ms=300))] * 2
    async with answering(lambda n: answers[n % 2]) as (url, seen), Client(url) as client:
        started = time.monotonic()
        await failure(client.score("abcd", ITEMS, deadline_ms=250))
        assert len(seen) == 1
        await failure(client.score("abcd", ITEMS, deadline_ms=60_000))
        assert time.monotonic() - started >= 0.3


async def test_connections_and_ids_are_kept() -> None:
    """Every attempt of a call has its id, and says how long the caller still waits."""
    overloaded = refused(errors.OverloadedError("full"))
    async with answering(lambda _: overloaded) as (url, seen), Client(url, deadline_ms=60_000) as client:
        await failure(client.score("abcd", ITEMS, request_id="mine"))
    assert len(seen) == 2
    assert all(b"x-request-id: mine\r\n" in raw for raw in seen)
    left = [float(raw.partition(b"x-request-deadline-ms: ")[2].partition(b"\r\n")[0]) for raw in seen]
    assert 60_000 > left[0] > left[1]


@pytest.mark.parametrize(("status", "kind"), [(502, UnreachableError), (404, errors.ServiceError)])
async def test_an_answer_of_somebody_else_is_told_apart(status: int, kind: type[errors.ServiceError]) -> None:
    """A proxy's page is no problem of ours."""
    async with (
        answering(lambda _: (status, {}, b"<html>")) as (url, _),
        Client(url, attempts=1, deadline_ms=60_000) as client,
    ):
        assert type(await failure(client.score("abcd", ITEMS))) is kind


def test_a_budget_saves_up_only_so_much() -> None:
    """A long quiet time does not allow a storm."""
    budget = RetryBudget(share=0.5, most=3)
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("url", ["127.0.0.1:50051", "ftp://host:1", "grpc://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """The message says how to write one."""
    with pytest.raises(ValueError, match="http, https, grpc or grpcs"):
        Client(url)


async def test_a_lost_connection_is_unreachable() -> None:
    """A server that closes without a word gave no answer."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Client(f"http://127.0.0.1:{port}", attempts=1, deadline_ms=60_000) as client:
        error = await failure(client.score("abcd", ITEMS))
    assert type(error) is UnreachableError
    assert isinstance(error.__cause__, httpx.TransportError)
