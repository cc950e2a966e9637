"""Bodies seen lately. Callers send the same one again and again: retries, hedges, the queries that everybody types.

Reading a body, and what follows from it alone, is half the work of a cached answer. What is remembered is the parsed
body of exactly these bytes, never an answer: whether and how it is scored is decided anew each time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from pydantic import BaseModel

from service.parse import parse_body

if TYPE_CHECKING:
    from service.request import Caller

Body = TypeVar("Body", bound=BaseModel)

LIMIT_BYTES: Final = 2**20  # of bodies; what is made of them takes about ten times as much
LONGEST_SHARE: Final = 0.1  # of that, for one body


class Repeats(Generic[Body]):
    """Parsed bodies of one model by their bytes, the least recently used go first. Not for several threads."""

    def __init__(self, model: type[Body], limit_bytes: int = LIMIT_BYTES) -> None:
        self.bytes = 0
        self._model = model
        self._limit = limit_bytes
        self._seen: OrderedDict[tuple[str, bytes], Body] = OrderedDict()

    def read(self, raw: bytes, caller: Caller) -> Body:
        """Parse and validate, or remember having done so for this tenant: no other can tell by the clock.

        Raises:
            MalformedBodyError, InvalidRequestError: see `parse_body`; a refused body is not remembered.
        """
        key = (caller.tenant, raw)
        body = self._seen.get(key)
        if body is not None:
            self._seen.move_to_end(key)
            return body
        body = parse_body(self._model, raw)
        if len(raw) <= LONGEST_SHARE * self._limit:
            self._seen[key] = body
            self.bytes += len(raw)
            while self.bytes > self._limit:
                (_, oldest), _ = self._seen.popitem(last=False)
                self.bytes -= len(oldest)
        return body
