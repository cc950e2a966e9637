"""A client of the service: typed, asynchronous, the same over HTTP and gRPC.

    async with Client("grpc://relevance:50051", api_key=key) as client:
        reply = await client.score("usb c cable", [Item(id="sku-1", title="USB-C cable, 2 m")], deadline_ms=150)

The scheme chooses the protocol: http, https, grpc or grpcs. A call has one deadline, retries included, and the service
is told what is left of it. What may succeed later is tried again, after the pause that the service asks for and a
random one, and only while a budget lasts: when everything fails, clients send at most a tenth more and not a multiple.
Failures are those of `service.errors`, and `UnreachableError` where no service answered.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import grpc.aio
import httpx
from google.rpc.status_pb2 import Status
from pydantic import TypeAdapter

from models.deadline import Deadline
from service.errors import BodyTooLargeError, DeadlineError, FieldError, ServiceError, by_code
from service.grpc.calls import DETAILS_KEY
from service.grpc.failures import error_of
from service.grpc.replies import explain_reply, score_reply
from service.grpc.requests import explain_message, score_message
from service.grpc.v1 import relevance_pb2 as pb
from service.reply import ExplainReply, ScoreReply
from service.schemas import ExplainBody, OwnContextBody, ScoreBody
from service.schemas import ItemBody as Item

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from google.protobuf.message import Message
    from pydantic import BaseModel

__all__ = ["Client", "Item", "RetryBudget", "Tls", "UnreachableError"]

Reply = TypeVar("Reply")

RESERVE_SECONDS: Final = 0.005  # of a call's time, at most a tenth: kept back for the way of the answer
FIRST_PAUSE_SECONDS: Final = 0.025  # the longest random pause before the first retry; doubles
LARGEST_MESSAGE: Final = 16 * 2**20  # bytes of an answer over gRPC
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Relevance"].full_name
_SCORE_REPLY: Final = TypeAdapter(ScoreReply)
_EXPLAIN_REPLY: Final = TypeAdapter(ExplainReply)


class UnreachableError(ServiceError):
    """No service answered: no connection, a lost one, or something on the way answered instead."""

    status, grpc, code, title = 503, "UNAVAILABLE", "unreachable", "Unreachable"
    retryable = True


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM.

    Attributes:
        ca: who signed the service's certificate; the system's authorities if None.
        certificate: the client's own, with its chain.
        key: of the client's own certificate.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class RetryBudget:
    """Each call earns a share of a retry, one is there from the start, and at most `most` are saved up."""

    def __init__(self, share: float = 0.1, most: float = 10.0) -> None:
        self._share = share
        self._most = most
        self._left = 1.0

    def earn(self) -> None:
        """A call is made."""
        self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Whether one retry may be made; it is counted."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Client:
    """Use it as a context manager, one for the whole process: connections are kept.

    Args:
        url: `scheme://host:port`.
        api_key: sent as a bearer token.
        tls: for https and grpcs.
        deadline_ms: of calls that name none.
        attempts: of one call, the first included.
        budget: shared by the calls of this client; may be shared among clients.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        tls: Tls | None = None,
        deadline_ms: float = 1_000.0,
        attempts: int = 3,
        budget: RetryBudget | None = None,
    ) -> None:
        self._transport = _open(url, tls or Tls())
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._deadline_ms = deadline_ms
        self._attempts = attempts
        self._budget = budget or RetryBudget()

    async def score(
        self,
        query: str,
        items: Sequence[Item],
        *,
        context: str = "auto",
        top_n: int | None = None,
        model: str | None = None,
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> ScoreReply:
        """How relevant is each item? Verdicts best first.

        Args:
            query: not blank.
            items: at least one, ids unique.
            context: `auto`, `none`, or the text of the caller's own chunk.
            top_n: return only this many of the best.
            model: the judge to ask; the checkpoint's own if None.
            deadline_ms: milliseconds that the caller waits in all.
            request_id: name of the call in the service's logs; one is made if None.

        Raises:
            ValueError: a field is wrong in a way that can be seen here.
            ServiceError: the subclass says what went wrong.
        """
        body = ScoreBody(query=query, items=list(items), context=_context(context), top_n=top_n, model=model)
        return await self._call(self._transport.score, body, deadline_ms, request_id)

    async def explain(
        self,
        query: str,
        item: Item,
        *,
        context: str = "auto",
        model: str | None = None,
        deadline_ms: float | None = None,
        request_id: str | None = None,
    ) -> ExplainReply:
        """The verdict on one item with the model's reasons; arguments and errors as of `score`."""
        body = ExplainBody(query=query, item=item, context=_context(context), model=model)
        return await self._call(self._transport.explain, body, deadline_ms, request_id)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self,
        send: Callable[[Any, Mapping[str, str], float], Awaitable[Reply]],
        body: BaseModel,
        deadline_ms: float | None,
        request_id: str | None,
    ) -> Reply:
        deadline = Deadline.after(self._deadline_ms if deadline_ms is None else deadline_ms)
        name = request_id or uuid.uuid4().hex
        self._budget.earn()
        attempt = 1
        while True:
            left = deadline.remaining()
            told = left - min(RESERVE_SECONDS, left * 0.1)
            headers = {**self._headers, "x-request-id": name, "x-request-deadline-ms": f"{max(0.001, told * 1e3):.3f}"}
            try:
                return await send(body, headers, left)
            except ServiceError as error:
                pause = _pause(error, attempt)
                hopeless = not error.retryable or attempt == self._attempts or pause >= deadline.remaining()
                if hopeless or not self._budget.spend():
                    raise
            await asyncio.sleep(pause)
            attempt += 1


class _Transport(Protocol):
    async def score(self, body: ScoreBody, headers: Mapping[str, str], seconds: float) -> ScoreReply: ...

    async def explain(self, body: ExplainBody, headers: Mapping[str, str], seconds: float) -> ExplainReply: ...

    async def close(self) -> None: ...


class _Http:
    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        verify = context if context is not None else True
        forever = httpx.Timeout(None)  # each call has a deadline
        self._client = httpx.AsyncClient(base_url=url, verify=verify, limits=limits, timeout=forever, trust_env=False)

    async def score(self, body: ScoreBody, headers: Mapping[str, str], seconds: float) -> ScoreReply:
        return _SCORE_REPLY.validate_json(await self._post("/v1/score", body, headers, seconds))

    async def explain(self, body: ExplainBody, headers: Mapping[str, str], seconds: float) -> ExplainReply:
        return _EXPLAIN_REPLY.validate_json(await self._post("/v1/explain", body, headers, seconds))

    async def close(self) -> None:
        await self._client.aclose()

    async def _post(self, path: str, body: BaseModel, headers: Mapping[str, str], seconds: float) -> bytes:
        content = body.model_dump_json(exclude_none=True)
        headers = {**headers, "content-type": "application/json"}
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.post(path, content=content, headers=headers)
        except TimeoutError as error:
            raise _too_late() from error
        except httpx.TransportError as error:
            raise UnreachableError(f"no answer from {self._client.base_url}: {error!r}") from error
        if response.status_code != HTTPStatus.OK:
            raise _problem(response)
        return response.content


class _Grpc:
    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None) -> None:
        options = [
            ("grpc.enable_retries", 0),  # retries are counted here
            ("grpc.lb_policy_name", "round_robin"),
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
        ]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(f"dns:///{target}", options=options)
        else:
            self._channel = grpc.aio.secure_channel(f"dns:///{target}", credentials, options=options)
        self._calls: dict[str, Any] = {
            name: self._channel.unary_unary(f"/{_SERVICE}/{name}") for name in ("Score", "Explain")
        }

    async def score(self, body: ScoreBody, headers: Mapping[str, str], seconds: float) -> ScoreReply:
        raw = await self._send("Score", score_message(body), headers, seconds)
        return score_reply(pb.ScoreResponse.FromString(raw))

    async def explain(self, body: ExplainBody, headers: Mapping[str, str], seconds: float) -> ExplainReply:
        raw = await self._send("Explain", explain_message(body), headers, seconds)
        return explain_reply(pb.ExplainResponse.FromString(raw))

    async def close(self) -> None:
        await self._channel.close()

    async def _send(self, method: str, message: Message, headers: Mapping[str, str], seconds: float) -> bytes:
        try:
            answer: bytes = await self._calls[method](
                message.SerializeToString(), timeout=seconds, metadata=tuple(headers.items())
            )
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        return answer


def _open(url: str, tls: Tls) -> _Transport:
    parts = urlsplit(url)
    if not parts.hostname or not parts.netloc or parts.scheme not in ("http", "https", "grpc", "grpcs"):
        raise ValueError(f"write the address as http, https, grpc or grpcs, ://host:port; it is {url!r}")
    if parts.scheme == "grpc":
        return _Grpc(parts.netloc, None)
    if parts.scheme == "grpcs":
        pem = [path.read_bytes() if path else None for path in (tls.ca, tls.key, tls.certificate)]
        return _Grpc(parts.netloc, grpc.ssl_channel_credentials(*pem))
    if parts.scheme == "http":
        return _Http(url, None)
    context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key)
    return _Http(url, context)


def _context(text: str) -> Any:
    return text if text in ("auto", "none") else OwnContextBody(text=text)


def _pause(error: ServiceError, attempt: int) -> float:
    asked = (error.retry_after_ms or 0) / 1000.0
    return asked + random.uniform(0.0, FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))


def _too_late() -> DeadlineError:
    return DeadlineError("the deadline passed before the service answered")


def _problem(response: httpx.Response) -> ServiceError:
    """The error in an answer over HTTP; what is no problem of ours was written by something on the way."""
    try:
        body = json.loads(response.content)
        kind = by_code(body["code"])
        fields = [FieldError(e["pointer"], e["detail"]) for e in body.get("errors", ())]
        return kind(body["detail"], errors=fields, retry_after_ms=body.get("retry_after_ms"))
    except (ValueError, KeyError, TypeError):
        detail = f"HTTP status {response.status_code}, and not from the service"
        return UnreachableError(detail) if response.is_server_error else ServiceError(detail)


def _failure(error: grpc.aio.AioRpcError) -> ServiceError:
    """The error in a status; one without our details was made by gRPC, here, there or on the way."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes) and (ours := error_of(Status.FromString(value))):
            return ours
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return UnreachableError(f"no answer: {error.details()}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return _too_late()
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return BodyTooLargeError(f"{error.details()}")
        case code:
            return ServiceError(f"gRPC status {code.name}: {error.details()}")
