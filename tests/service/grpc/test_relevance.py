"""The unary methods over a real connection, beside the HTTP door around the same gateway."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2

from models.errors import EngineBusyError, EngineError, EngineUnavailableError
from service.access.keys import key_hash, key_id, new_key
from service.grpc.failures import error_of
from service.grpc.replies import explain_reply, score_reply
from service.grpc.requests import explain_message, score_message
from service.grpc.v1 import relevance_pb2 as pb
from service.schemas import ExplainBody, ScoreBody
from tests.service.conftest import FakeKnowledge, OverlapEngine
from tests.service.grpc.conftest import details

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.service.grpc.conftest import Doors

    OpenDoors = Callable[..., AbstractAsyncContextManager[Doors]]

BODY: dict[str, Any] = {
    "query": "abcd",
    "items": [
        {"id": "no", "title": "wxyz"},
        {"id": "yes", "title": "abcd", "attributes": {"size": 2, "new": True, "colours": ["black", "red"]}},
        {"id": "part", "title": "ab", "brand": "ef", "description": "unrepr\u00e9sentable " * 20},
    ],
}
SCORE = "/tierwise.v1.Relevance/Score"


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return failure.value


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"top_n": 2},
        {"context": "none"},
        {"context": {"text": "a chunk of the caller's own"}},
        {"query": "a query that is far too long for its budget of tokens, ninety characters or more, " * 3},
    ],
)
async def test_both_doors_answer_the_same(open_doors: OpenDoors, change: dict[str, Any]) -> None:
    """Verdicts, versions, context and usage are equal to the last digit; only id and times differ."""
    body = {**BODY, **change}
    async with open_doors(knowledge=FakeKnowledge()) as doors:
        over_http = (await doors.http.post("/v1/score", body)).json()
        over_grpc = score_reply(await doors.stub.Score(score_message(ScoreBody.model_validate(body))))
    assert as_json(over_grpc) == without_times(over_http)


async def test_both_doors_explain_the_same(open_doors: OpenDoors) -> None:
    """The rationale, or the text that is none, arrives whole."""
    body = {"query": "abcd", "item": BODY["items"][1]}
    async with open_doors(OverlapEngine(rationale=(30, 31, 32)), FakeKnowledge()) as doors:
        over_http = (await doors.http.post("/v1/explain", body)).json()
        message = explain_message(ExplainBody.model_validate(body))
        over_grpc = explain_reply(await doors.stub.Explain(message))
    assert as_json(over_grpc) == without_times(over_http)


def as_json(reply: Any) -> dict[str, Any]:
    """A reply as HTTP would write it, without what differs from call to call."""
    from pydantic_core import to_jsonable_python  # noqa: PLC0415 # only here

    return without_times(to_jsonable_python(reply))


def without_times(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply without what differs from call to call, a recall from the cache included."""
    usage = {k: v for k, v in reply["usage"].items() if not k.startswith("cached")}
    return {k: v for k, v in reply.items() if k not in ("id", "timings_ms", "usage")} | {"usage": usage}


@pytest.mark.parametrize(
    ("engine", "change"),
    [
        (OverlapEngine(), {"query": " "}),
        (OverlapEngine(), {"items": []}),
        (OverlapEngine(), {"items": [{"id": "a", "title": "t"}, {"id": "a", "title": "t"}]}),
        (OverlapEngine(), {"items": [{"id": "a", "title": "\u200b", "attributes": {"n": 2e15}}], "top_n": 0}),
        (OverlapEngine(), {"items": [{"id": str(n), "title": "t"} for n in range(257)]}),
        (OverlapEngine(raises=EngineBusyError("full")), {}),
        (OverlapEngine(raises=EngineUnavailableError("dead")), {}),
        (OverlapEngine(raises=EngineError("odd")), {}),
        (OverlapEngine(expired=frozenset(range(3))), {}),
        (OverlapEngine(failed=frozenset(range(3))), {}),
    ],
)
async def test_both_doors_refuse_the_same(open_doors: OpenDoors, engine: OverlapEngine, change: dict[str, Any]) -> None:
    """Code, text, fields and retry hint of an error are those of the HTTP door."""
    from tests.service.grpc.test_requests import message_of  # noqa: PLC0415 # builds messages that are not valid

    body = {**BODY, **change}
    async with open_doors(engine) as doors:
        problem = (await doors.http.post("/v1/score", body)).json()
        failure = await refusal(doors.stub.Score(message_of(body)))
    error = error_of(details(failure))
    assert error is not None
    assert failure.code() is grpc.StatusCode[error.grpc]
    assert (error.code, error.detail, error.retryable) == (problem["code"], problem["detail"], problem["retryable"])
    assert error.retry_after_ms == problem.get("retry_after_ms")
    assert [{"pointer": e.pointer, "detail": e.detail} for e in error.errors] == problem.get("errors", [])


async def test_a_request_id_goes_through(doors: Doors) -> None:
    """The caller's id comes back with answers, errors and in the reply; a bad one is replaced."""
    message = score_message(ScoreBody.model_validate(BODY))
    call: Any = doors.stub.Score(message, metadata=(("x-request-id", "my-id"),))
    assert (await call).id == "my-id"
    assert (await call.trailing_metadata())["x-request-id"] == "my-id"
    failure = await refusal(doors.stub.Score(pb.ScoreRequest(), metadata=(("x-request-id", "my-id"),)))
    assert failure.trailing_metadata()["x-request-id"] == "my-id"
    info = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(info) for detail in details(failure).details)
    assert info.request_id == "my-id"
    assert (await doors.stub.Score(message, metadata=(("x-request-id", "a b"),))).id != "a b"


async def test_bytes_that_are_no_message_are_refused_with_details(doors: Doors) -> None:
    """A text that is not UTF-8 is the caller's mistake, told like every other."""
    call: Any = doors.channel.unary_unary(SCORE)
    failure = await refusal(call(b"\x0a\x02\xff\xfe"))
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in (failure.details() or "")
    assert error_of(details(failure)) is not None


async def test_a_message_over_the_limit_is_refused(open_doors: OpenDoors) -> None:
    """The limit of a body holds here too."""
    async with open_doors(limits={"body_bytes": 5_000}) as doors:
        failure = await refusal(doors.stub.Score(pb.ScoreRequest(query="q" * 6_000)))
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_refusal_of_long_texts_still_arrives(doors: Doors) -> None:
    """What the caller wrote cannot make the error too long to be read."""
    name = "n\u00e9" * 50_000
    attributes = [pb.Attribute(name=f"{name}{n}", number=1e300) for n in range(20)]
    failure = await refusal(
        doors.stub.Score(pb.ScoreRequest(query="q", items=[pb.Item(id="a", title="t", attributes=attributes)]))
    )
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of(details(failure)) is not None


async def test_an_engine_that_hangs_ends_with_the_deadline(open_doors: OpenDoors) -> None:
    """The caller's deadline ends the call whatever the engine does, and whoever set it."""
    async with open_doors(OverlapEngine(hang=True), deadline_ms=60_000, engine_grace_ms=0) as doors:
        message = score_message(ScoreBody.model_validate(BODY))
        for options in ({"timeout": 0.3}, {"metadata": (("x-request-deadline-ms", "300"),)}):
            started = time.monotonic()
            failure = await refusal(doors.stub.Score(message, **options))
            assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - started < 5
        message.deadline_ms = 300
        assert (await refusal(doors.stub.Score(message))).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_grpc_timeout_leaves_time_for_a_partial_answer(open_doors: OpenDoors) -> None:
    """The engine is given less than the caller waits, since a late answer reaches nobody."""
    seen: list[float] = []

    class Noting(OverlapEngine):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(args[2].remaining())
            return await super().score(*args, **kwargs)

    async with open_doors(Noting(), deadline_ms=3_600_000, grpc_reserve_ms=2_000) as doors:
        seen.clear()
        await doors.stub.Score(score_message(ScoreBody.model_validate(BODY)), timeout=50)
    assert 10 < seen[0] < 49  # gRPC rounds what it sends up


async def test_a_caller_that_leaves_stops_costing_compute(open_doors: OpenDoors) -> None:
    """Cancelling the call cancels the engine's."""
    cancelled = asyncio.Event()
    asked = asyncio.Event()

    class Hanging(OverlapEngine):
        async def score(self, *args: Any, **kwargs: Any) -> Any:
            if not self.armed:
                return await super().score(*args, **kwargs)
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    async with open_doors(Hanging(), deadline_ms=60_000) as doors:
        call: Any = doors.stub.Score(score_message(ScoreBody.model_validate(BODY)))
        waiting = asyncio.ensure_future(call)
        await asyncio.wait_for(asked.wait(), 10)
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 10)
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_key_is_asked_for_and_its_scopes_hold(open_doors: OpenDoors) -> None:
    """No key, a wrong key and a key without the scope are told apart; a good one gets its tenant's answer."""
    key = new_key()
    record = {"id": key_id(key), "sha256": key_hash(key), "tenant": "shop", "scopes": ["score"]}
    message = score_message(ScoreBody.model_validate(BODY))
    async with open_doors(access={"keys": json.dumps({"keys": [record]})}) as doors:
        assert (await refusal(doors.stub.Score(message))).code() is grpc.StatusCode.UNAUTHENTICATED
        wrong = (("authorization", f"Bearer {new_key()}"),)
        assert (await refusal(doors.stub.Score(message, metadata=wrong))).code() is grpc.StatusCode.UNAUTHENTICATED
        good = (("authorization", f"Bearer {key}"),)
        assert (await doors.stub.Score(message, metadata=good)).results
        explain = pb.ExplainRequest(query="q", item=pb.Item(id="a", title="t"))
        failure = await refusal(doors.stub.Explain(explain, metadata=good))
        assert failure.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_one_log_line_a_call_and_none_of_its_text(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    """The line has what the HTTP door's has, and the gRPC code."""
    caplog.set_level(logging.INFO, logger="tierwise.access")
    await doors.stub.Score(score_message(ScoreBody.model_validate(BODY)), metadata=(("x-request-id", "one"),))
    await refusal(doors.stub.Score(pb.ScoreRequest(query="secret words"), metadata=(("x-request-id", "two"),)))
    lines = [r.fields for r in caplog.records if r.name == "tierwise.access"]  # type: ignore[attr-defined] # ours
    assert [(f["id"], f["path"], f["status"], f["grpc"]) for f in lines] == [
        ("one", SCORE, 200, "OK"),
        ("two", SCORE, 422, "INVALID_ARGUMENT"),
    ]
    assert lines[0]["items"] == 3
    assert "secret" not in json.dumps(lines, default=str)


async def test_a_defect_is_logged_and_its_cause_stays_here(
    open_doors: OpenDoors, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller learns that it was a defect, the log why."""
    async with open_doors(OverlapEngine(raises=RuntimeError("secret path"))) as doors:
        failure = await refusal(doors.stub.Score(score_message(ScoreBody.model_validate(BODY))))
    assert failure.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in json.dumps(MessageToDict(details(failure)))
    assert any(r.exc_info and "secret path" in str(r.exc_info[1]) for r in caplog.records)
