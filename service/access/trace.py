"""W3C trace context: what a caller says of the trace that its call belongs to. Handed on, never made up here. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")
_STATE = re.compile(r"[ -~\t]{1,512}")
_LONGEST = 512  # characters of a parent of a version to come


class Trace(NamedTuple):
    """A well-formed trace context.

    Attributes:
        id: 32 hexadecimal digits.
        headers: as they came, for the next service.
    """

    id: str
    headers: dict[str, str]


def trace_of(metadata: Mapping[str, str]) -> Trace | None:
    """The trace that headers or gRPC metadata name, None when they name none that is well-formed."""
    parent = metadata.get("traceparent")
    if parent is None or len(parent) > _LONGEST or not (match := _PARENT.fullmatch(parent)):
        return None
    version, name, more = match.groups()
    if version == "00" and more:
        return None
    headers = {"traceparent": parent}
    state = metadata.get("tracestate")
    if state is not None and _STATE.fullmatch(state):
        headers["tracestate"] = state
    return Trace(name, headers)
