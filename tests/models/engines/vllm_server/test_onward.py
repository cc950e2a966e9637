"""What a call hands on to the servers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from models.deadline import Deadline
from models.engines.onward import HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.engines.vllm_server.engine import VllmServerEngine
    from tests.models.engines.vllm_server.conftest import Peer


async def test_each_call_has_its_own_headers(pool: Callable[..., VllmServerEngine], peers: list[Peer]) -> None:
    """Calls side by side do not mix them up, and what the pool asks for itself has none."""
    engine = pool()
    await engine.warm_up()

    async def call(name: str) -> None:
        HEADERS.set({"x-request-id": name, "traceparent": f"trace-{name}"})
        await engine.score([1, int(name)], [[4], [5], [6]], Deadline.never())

    await asyncio.gather(*(asyncio.create_task(call(str(n))) for n in range(20, 28)))
    seen = [
        (head["x-request-id"], head["traceparent"])
        for peer in peers
        for head, body in zip(peer.headers, peer.bodies, strict=True)
        if body in peer.scored
    ]
    assert {name for name, _ in seen} == {str(n) for n in range(20, 28)}
    assert all(trace == f"trace-{name}" for name, trace in seen)
    probes = [head for peer in peers for head, b in zip(peer.headers, peer.bodies, strict=True) if b not in peer.scored]
    assert probes
    assert all("x-request-id" not in head for head in probes)
