"""ScoreStream over a real connection."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from models.errors import EngineBusyError
from service.access.keys import key_hash, key_id, new_key
from service.grpc.failures import error_of
from service.grpc.replies import results_of
from service.grpc.requests import score_message
from service.grpc.stream import MOST_IN_FLIGHT
from service.grpc.v1 import relevance_pb2 as pb
from service.parts import PART_ITEMS
from service.schemas import ScoreBody
from tests.service.conftest import OverlapEngine
from tests.service.grpc.conftest import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.service.grpc.conftest import Doors

    OpenDoors = Callable[..., AbstractAsyncContextManager[Doors]]


def request(name: str, count: int = 3, **more: Any) -> pb.ScoreStreamRequest:
    """A request for so many items, the last of which matches."""
    items = [{"id": f"{name}-{n}", "title": f"abc{chr(97 + n % 26)}{n}"} for n in range(count)]
    body = ScoreBody.model_validate({"query": f"abcd {name}", "items": items, **more})
    return pb.ScoreStreamRequest(id=name, request=score_message(body))


async def parts_of(
    doors: Doors, requests: Iterable[pb.ScoreStreamRequest], metadata: tuple[tuple[str, str], ...] = ()
) -> dict[str, list[pb.ScoreStreamResponse]]:
    """Every part of the answers, by request."""
    parts: dict[str, list[pb.ScoreStreamResponse]] = {}
    async for part in doors.stub.ScoreStream(iter(requests), metadata=metadata):
        parts.setdefault(part.id, []).append(part)
    return parts


async def test_every_request_gets_all_its_results_and_then_its_end(doors: Doors) -> None:
    """Each item comes once, with the verdict that the unary call gives; the last part says with what it was judged."""
    requests = [request(name, 20) for name in ("a", "b", "c")]
    parts = await parts_of(doors, requests)
    for asked in requests:
        *before, last = parts[asked.id]
        assert last.WhichOneof("event") == "done"
        assert not last.done.results
        results = [r for part in before for r in part.results.results]
        assert sorted(r.index for r in results) == list(range(20))
        unary = await doors.stub.Score(asked.request)
        assert results_of(sorted(results, key=lambda r: r.index), last.done.tiers) == results_of(
            sorted(unary.results, key=lambda r: r.index), unary.tiers
        )
        assert last.done.versions == unary.versions


async def test_results_come_while_others_are_still_computed(open_doors: OpenDoors) -> None:
    """The first group's verdicts are here before the engine has answered for the rest."""
    go_on = asyncio.Event()

    class Halting(OverlapEngine):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            if self.armed and self.calls:
                await go_on.wait()
            return await super().score(*args, **kwargs)

    async with open_doors(Halting(), deadline_ms=60_000) as doors:
        stream = doors.stub.ScoreStream(iter([request("a", 3 * PART_ITEMS)]))
        parts = aiter(stream)
        first = await asyncio.wait_for(anext(parts), 20)
        assert len(first.results.results) == PART_ITEMS
        go_on.set()
        rest = [part async for part in parts]
    assert sum(len(part.results.results) for part in rest) == 2 * PART_ITEMS
    assert rest[-1].WhichOneof("event") == "done"


async def test_an_error_of_one_request_leaves_the_others(doors: Doors) -> None:
    """Refused ones come back under their own id with the details of a unary call's error."""
    parts = await parts_of(doors, [request("good"), request("top", top_n=1), pb.ScoreStreamRequest(id="empty")])
    assert parts["good"][-1].WhichOneof("event") == "done"
    for name, pointer in (("top", "#/top_n"), ("empty", "#/query")):
        error = error_of(parts[name][-1].error)
        assert error is not None
        assert (error.code, error.errors[0].pointer) == ("invalid-request", pointer)


async def test_an_engine_without_capacity_is_told_for_each_request(open_doors: OpenDoors) -> None:
    """The stream itself goes on and ends well."""
    async with open_doors(OverlapEngine(raises=EngineBusyError("full"))) as doors:
        parts = await parts_of(doors, [request("a"), request("b")])
    for name in ("a", "b"):
        error = error_of(parts[name][-1].error)
        assert error is not None
        assert error.code == "overloaded"


async def test_items_that_were_not_reached_come_with_their_status(open_doors: OpenDoors) -> None:
    """Late items are in the answer too, and it is flagged."""
    async with open_doors(OverlapEngine(expired=frozenset({1}))) as doors:
        parts = await parts_of(doors, [request("a", 3)])
    results = [r for part in parts["a"] for r in part.results.results]
    assert sorted((r.index, r.status) for r in results) == [
        (0, pb.ITEM_STATUS_OK),
        (1, pb.ITEM_STATUS_EXPIRED),
        (2, pb.ITEM_STATUS_OK),
    ]
    assert list(parts["a"][-1].done.degraded) == ["deadline"]


@pytest.mark.parametrize(
    "requests",
    [[request("")], [request("i" * 257)], [request("a"), request("a")]],
    ids=["no id", "long id", "id in flight"],
)
async def test_a_request_without_an_id_of_its_own_ends_the_stream(
    open_doors: OpenDoors, requests: list[pb.ScoreStreamRequest]
) -> None:
    """Nobody could tell whose answer it is."""
    async with open_doors(OverlapEngine(hang=True), deadline_ms=60_000) as doors:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await parts_of(doors, requests)
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_key_that_is_withdrawn_scores_no_more(open_doors: OpenDoors, tmp_path: Path) -> None:
    """Not on a stream that was opened with it either: who asks is asked for each request, with what may be asked."""
    key, other = new_key(), new_key()

    def write(key: str, quotas: dict[str, Any]) -> None:
        record = {"id": key_id(key), "sha256": key_hash(key), "tenant": "shop", "scopes": ["score"]}
        file.write_text(json.dumps({"keys": [record], "quotas": quotas}))

    file = tmp_path / "keys.yaml"
    write(key, {})
    async with open_doors(access={"keys_file": file}) as doors:
        stream = doors.stub.ScoreStream(metadata=(("x-api-key", key),))

        async def code_of(name: str) -> str:
            await stream.write(request(name))
            while (part := await asyncio.wait_for(stream.read(), 20)).WhichOneof("event") == "results":
                pass
            error = error_of(part.error) if part.WhichOneof("event") == "error" else None
            return error.code if error else "done"

        assert await code_of("a") == "done"
        write(key, {"shop": {"requests_per_second": 0.01}})
        doors.http.gateway.access.refresh()
        assert [await code_of("b"), await code_of("c")] == ["done", "quota"]
        write(other, {})
        doors.http.gateway.access.refresh()
        assert await code_of("d") == "unauthenticated"
        stream.cancel()


async def test_each_request_has_a_deadline_of_its_own(open_doors: OpenDoors) -> None:
    """The stream may last; the configured budget is for each request."""
    async with open_doors(OverlapEngine(hang=True), deadline_ms=200, engine_grace_ms=0) as doors:

        async def slowly() -> AsyncIterator[pb.ScoreStreamRequest]:
            for name in ("a", "b"):
                yield request(name)
                await asyncio.sleep(0.4)

        parts = [part async for part in doors.stub.ScoreStream(slowly())]
    errors = [error_of(part.error) for part in parts]
    assert [error.code for error in errors if error] == ["deadline-exceeded"] * 2


async def test_a_stream_has_a_bound_on_what_is_in_flight(open_doors: OpenDoors) -> None:
    """What a caller sends beyond it waits unread."""
    async with open_doors(OverlapEngine(hang=True), deadline_ms=60_000) as doors:
        stream = doors.stub.ScoreStream(iter([request(str(n), 1) for n in range(MOST_IN_FLIGHT + 20)]))
        await until(lambda: len(doors.http.engine.calls) == MOST_IN_FLIGHT)
        await asyncio.sleep(0.3)
        assert len(doors.http.engine.calls) == MOST_IN_FLIGHT
        stream.cancel()


async def test_a_stream_ends_with_the_door(open_doors: OpenDoors) -> None:
    """A caller that keeps its stream open does not hold up the end: it is told to go elsewhere."""
    async with open_doors(drain_seconds=60) as doors:
        stream = doors.stub.ScoreStream()
        await stream.write(request("a"))
        while (await asyncio.wait_for(stream.read(), 20)).WhichOneof("event") != "done":
            pass
        doors.door.end()
        await asyncio.wait_for(doors.serving, 20)
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_caller_that_leaves_stops_costing_compute(open_doors: OpenDoors) -> None:
    """Cancelling the stream cancels what runs for it."""
    async with open_doors(OverlapEngine(hang=True), deadline_ms=60_000) as doors:
        stream = doors.stub.ScoreStream(iter([request("a")]))
        await until(lambda: bool(doors.http.engine.calls))
        stream.cancel()
        await until(lambda: not any(task.get_name() == "stream-parts" for task in asyncio.all_tasks()))
