"""One vLLM server over HTTP: calls, what its failures mean, and whether it takes part in the pool."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx

from models.engines.label_reads import priority_of
from models.engines.vllm_server.wire import COMPLETIONS, BadReplyError, label_reads, label_request
from models.errors import EngineBusyError, EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence

    from models.deadline import Deadline
    from models.engines.label_reads import LabelRead

_CONNECT_SECONDS: Final = 1.0
_BUSY: Final = frozenset({429, 503})
_TEXT: Final = 300  # characters of a server's own words worth passing on
_Reply = TypeVar("_Reply")
_STRIKES: Final = 2  # failures in a row before a server is left out


class LateError(EngineUnavailableError):
    """No answer within the time that the call was given; says nothing about the server's health."""


@dataclass(slots=True)
class Traffic:
    """What goes to one address, whichever judge it is for.

    Attributes:
        load: tokens sent and not yet answered.
        calls: good answers so far.
    """

    load: int = 0
    calls: int = 0

    def unload(self, tokens: int) -> None:
        """Tokens that counted as load are answered or given up."""
        self.load -= tokens


class Server:
    """One judge on one server of a pool. Not ready until it has been compared with the manifest.

    Attributes:
        url: its address, without a path.
        traffic: shared by all judges at that address.
        ready: whether requests are sent to it.
        detail: one sentence on its state.
        model: the name it serves the judge under.
        takes_priority: whether it schedules by priority; learnt at the comparison.
        answered_at: monotonic time of its last good answer.
        limit: tokens of its context.
    """

    def __init__(self, url: str, client: httpx.AsyncClient, traffic: Traffic) -> None:
        self.url = url.rstrip("/")
        self.traffic = traffic
        self.ready = False
        self.detail = "not compared yet"
        self.model = ""
        self.takes_priority = False
        self.answered_at = 0.0
        self.limit = 0
        self._client = client
        self._failures = 0
        self._lost: asyncio.Future[str] | None = None

    def admit(self) -> None:
        """Take part in the pool."""
        if not self.ready:
            self._lost = asyncio.get_running_loop().create_future()
        self.ready, self.detail, self._failures = True, "answers as the manifest says", 0

    def expel(self, detail: str) -> None:
        """Take no part any more; calls under way fail at once, so that they can go elsewhere."""
        self.ready, self.detail = False, detail
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(detail)

    def strike(self, detail: str) -> None:
        """A call or probe failed, for a reason that lies with the server: one may be chance, two in a row are not."""
        self._failures += 1
        if self._failures >= _STRIKES or not self.ready:
            self.expel(detail)

    def priority(self, deadline: Deadline) -> int | None:
        """What to send as priority: None where it would be refused."""
        return priority_of(deadline) if self.takes_priority else None

    async def read_labels(
        self,
        prompts: Sequence[Sequence[int]],
        labels: Sequence[int],
        *,
        deadline: Deadline,
        scope: str,
    ) -> list[LabelRead]:
        """One call for N prompts.

        Args:
            prompts: token ids, the shared prefix first in each.
            labels: K label token ids.
            deadline: for the whole call; also its priority where the server schedules by that.
            scope: salts the prefix cache.

        Raises:
            LateError: no answer before the deadline.
            EngineUnavailableError: no connection, 5xx, a reply that is no answer, or expelled meanwhile.
            EngineBusyError: 429 or 503.
            EngineError: the server refuses the request for what it says; another would too.
        """
        body = label_request(self.model, prompts, labels, priority=self.priority(deadline), scope=scope)
        try:
            content = await self._unless_lost(self.post(COMPLETIONS, body, deadline), deadline)
            reads = label_reads(content, prompts, labels)
        except BadReplyError as error:
            raise EngineUnavailableError(f"{self.url} answered something else: {error}") from error
        self.answered_at = time.monotonic()
        self.traffic.calls += 1
        self._failures = 0
        return reads

    async def post(self, path: str, body: Mapping[str, Any], deadline: Deadline) -> bytes:
        """POST JSON, return the body of a 200. Raises as `read_labels`."""
        async with self._translated():
            response = await self._client.post(self.url + path, json=body, timeout=_timeout(deadline))
            return _checked(response, self.url)

    async def get(self, path: str, deadline: Deadline) -> bytes:
        """GET, return the body of a 200. Raises as `read_labels`."""
        async with self._translated():
            return _checked(await self._client.get(self.url + path, timeout=_timeout(deadline)), self.url)

    async def lines(self, body: Mapping[str, Any], deadline: Deadline) -> AsyncGenerator[str]:
        """POST to the completions route, yield the reply's lines as they come. Raises as `read_labels`."""
        async with (
            self._translated(),
            self._client.stream("POST", self.url + COMPLETIONS, json=body, timeout=_timeout(deadline)) as response,
        ):
            if response.status_code != httpx.codes.OK:
                await response.aread()
                _checked(response, self.url)
            lines = response.aiter_lines()
            while (line := await self._unless_lost(anext(lines, None), deadline)) is not None:
                yield line

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise LateError(f"{self.url} did not answer in time ({type(error).__name__})") from error
        except (httpx.HTTPError, OSError, AttributeError) as error:
            # The last two: anyio asks a connection that is reset as it opens for its peer, and httpx lets that through.
            raise EngineUnavailableError(f"{self.url}: {type(error).__name__}: {error}") from error

    async def _unless_lost(self, call: Awaitable[_Reply], deadline: Deadline) -> _Reply:
        """The call's result, unless time is over (httpx limits each read, not their sum) or the server is expelled."""
        task = asyncio.ensure_future(call)
        watched: set[asyncio.Future[Any]] = {task} if self._lost is None or not self.ready else {task, self._lost}
        try:
            await asyncio.wait(watched, timeout=_seconds(deadline), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()  # closes the connection, which makes vLLM abort the prompts
                await asyncio.wait({task})
        if not task.cancelled():
            return task.result()
        if self._lost is not None and self._lost.done() and self._lost in watched:
            raise EngineUnavailableError(f"{self.url}: {self._lost.result()}")
        raise LateError(f"{self.url} did not answer in time")


def _seconds(deadline: Deadline) -> float | None:
    remaining = deadline.remaining()
    return None if remaining == float("inf") else remaining


def _timeout(deadline: Deadline) -> httpx.Timeout:
    seconds = _seconds(deadline)
    return httpx.Timeout(seconds, connect=_CONNECT_SECONDS if seconds is None else min(_CONNECT_SECONDS, seconds))


def _checked(response: httpx.Response, url: str) -> bytes:
    if response.status_code == httpx.codes.OK:
        return response.content
    said = response.text[:_TEXT]
    if response.status_code in _BUSY:
        raise EngineBusyError(f"{url} is busy ({response.status_code}): {said}")
    if response.is_server_error:
        raise EngineUnavailableError(f"{url} failed ({response.status_code}): {said}")
    raise EngineError(f"{url} refused the request ({response.status_code}): {said}")
