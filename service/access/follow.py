"""Follows files that may change under a running service: keys, certificates."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


async def follow(refresh: Callable[[], object], seconds: float) -> None:
    """Call `refresh`, which may block, every so many seconds, until cancelled. Whatever fails, the next call comes."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(refresh)
        except Exception:  # what is in force stays in force
            log.exception("cannot look for a change")
