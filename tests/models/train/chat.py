"""A real HTTP server in the place of an OpenAI-compatible chat endpoint; what it says is a test's own."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator


class ChatServer(ThreadingHTTPServer):
    """Answers every chat completion with what `reply` makes of it.

    Attributes:
        finish_reason: of every answer.
        retry_after: seconds that every answer asks to wait.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.finish_reason = "stop"
        self.retry_after = 0.0

    def reply(self, body: Any, key: str | None) -> tuple[int, Any]:
        """Status and content of the answer to a body that came under this `authorization`."""
        raise NotImplementedError

    @contextmanager
    def answering(self) -> Iterator[Self]:
        """While it answers, from a thread of its own."""
        thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        """One chat completion."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, content = self.server.reply(asked, self.headers["authorization"])
        choice = {"message": {"content": content}, "finish_reason": self.server.finish_reason}
        body = json.dumps({"choices": [choice]}).encode()
        self.send_response(status)
        self.send_header("retry-after", str(self.server.retry_after))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Silence."""
