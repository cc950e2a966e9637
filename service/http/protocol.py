"""HTTP/1.1 on one connection: uvicorn's protocol with the limits that it lacks, and the client's certificate.

httptools takes headers of any number and size and waits for the rest of a request for ever. Here a head is bounded in
bytes, lines and time, a body in time (in bytes: service.http.body), and so is the time that a caller takes to read its
answer; connections past the most that are served at a time are turned away. A request that arrives in one piece, as
nearly every one does, starts no timer.
"""

from __future__ import annotations

import logging
import uuid
from enum import Enum, auto
from typing import TYPE_CHECKING, ClassVar

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service import errors
from service.access.tls import names_in
from service.http.body import SLOW_KEY
from service.http.guard import CERTIFICATE_KEY
from service.http.problems import MEDIA_TYPE

if TYPE_CHECKING:
    import asyncio

    from service.settings import ConnectionSettings

log = logging.getLogger(__name__)


class _Phase(Enum):
    IDLE = auto()
    HEAD = auto()
    BODY = auto()


def limited(limits: ConnectionSettings) -> type[HttpToolsProtocol]:
    """The protocol class with these limits, for `uvicorn.Config(http=...)`."""
    return type("LimitedProtocol", (_Protocol,), {"limits": limits})


class _Protocol(HttpToolsProtocol):
    limits: ClassVar[ConnectionSettings]

    _phase = _Phase.IDLE
    _requests = 0
    _head_bytes = 0
    _refused = False
    _names: tuple[str, ...] = ()
    _timer: asyncio.TimerHandle | None = None
    _timed: tuple[int, _Phase] | None = None  # which phase of which request the timer is for
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1)  # so that `pause_writing` tells of all that is not taken
        if secured := transport.get_extra_info("ssl_object"):
            self._names = tuple(names_in(secured.getpeercert() or {}))
        if len(self.connections) > self.limits.most:
            self._refuse(errors.OverloadedError("too many connections; reuse yours", retry_after_ms=1000))
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._unread):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        begun = self._requests if self._phase is _Phase.HEAD else None
        super().data_received(data)
        if self._phase is _Phase.HEAD and begun == self._requests:  # not one line of it may be complete
            self._count_head(len(data))
        if not self._refused and not self.transport.is_closing():
            self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._requests += 1
        self._head_bytes = 0
        self.scope[CERTIFICATE_KEY] = self._names  # type: ignore[literal-required] # an extension of ours

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self._phase is _Phase.HEAD:  # a trailer comes after the request was judged by its headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._phase = _Phase.BODY
        if len(self.headers) > self.limits.headers:
            self._refuse(errors.HeadTooLargeError(f"send at most {self.limits.headers} headers"))
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _Phase.IDLE
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._phase is _Phase.HEAD and not self.transport.is_closing():
            self._timed = None  # the time that the caller waited for us was not its own
            self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread:
            self._unread.cancel()

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses, in our own format."""
        self._refuse(errors.MalformedHeadError(msg))

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.limits.head_bytes and not self._refused:
            limit = self.limits.head_bytes
            self._refuse(errors.HeadTooLargeError(f"send at most {limit} bytes of request line and headers"))

    def _watch(self) -> None:
        """Have a timer for the phase that the connection is in, and only one for all of it."""
        if self._phase is _Phase.IDLE and self.cycle is not None and not self.cycle.response_complete:
            phase = None  # a whole request is being answered
        elif self._phase is _Phase.IDLE and self.timeout_keep_alive_task is not None:
            phase = None  # uvicorn waits for the next one
        else:
            phase = (self._requests, self._phase)
        if phase == self._timed:
            return
        if self._timer:
            self._timer.cancel()
        self._timed, self._timer = phase, None
        if phase is not None:
            self._timer = self.loop.call_later(self._seconds(), self._late)

    def _seconds(self) -> float:
        return self.limits.body_seconds if self._phase is _Phase.BODY else self.limits.head_seconds

    def _late(self) -> None:
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.pipeline or (answering and self._phase is _Phase.HEAD):  # requests before this one wait for us
            self._timer = self.loop.call_later(self._seconds(), self._late)
        elif self._phase is _Phase.HEAD:
            limit = self.limits.head_seconds
            self._refuse(errors.SlowRequestError(f"send request line and headers within {limit:g} seconds"))
        elif self._phase is _Phase.BODY and answering and not self.cycle.response_started:
            slow = errors.SlowRequestError(f"send the whole body within {self.limits.body_seconds:g} seconds")
            self.cycle.scope[SLOW_KEY] = slow  # type: ignore[literal-required] # an extension of ours
            self._refuse(slow)  # and the route that waits for the rest learns that the caller is gone
        else:
            self.transport.abort()

    def _refuse(self, error: errors.ServiceError) -> None:
        """Answer without the app, and close."""
        self._refused = True
        name = uuid.uuid4().hex
        log.info("refused", extra={"fields": {"id": name, "status": error.status, "code": error.code}})
        body = to_json(errors.problem(error, name))
        head = STATUS_LINE[error.status] + f"content-type: {MEDIA_TYPE}\r\nx-request-id: {name}\r\n".encode()
        if error.retry_after_ms is not None:
            head += b"retry-after: %d\r\n" % -(-error.retry_after_ms // 1000)
        self.transport.write(head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        self.transport.close()
