"""What a call's surroundings hand on to engines elsewhere, as headers: its name, its trace. A door sets it per call."""

from __future__ import annotations

from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADERS: Final[ContextVar[Mapping[str, str]]] = ContextVar("onward_headers", default=MappingProxyType({}))
