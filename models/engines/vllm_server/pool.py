"""What the judges on one pool of servers share: the operator's choices, connections, load, and retries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from models.engines.onward import HEADERS
from models.engines.vllm_server.routing import RetryBudget
from models.engines.vllm_server.server import Traffic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Choices of the operator. Times in seconds.

    Attributes:
        model: the name that the servers serve the judge under; their only base model when None.
        api_key: sent as a bearer token.
        probe_every: between looks at a server: for so long may one that begins to answer wrongly be believed.
        probe_timeout: a probe, one short prompt, must be answered within this.
        compare_timeout: for the comparison with the manifest.
        spill_tokens: a server with more unanswered tokens, and more than twice the least loaded one's, is passed over.
        retry_ratio: extra calls, retries and hedges together, per call.
        hedge_after: ask a second server when the first has not answered for so long; None: never.
        connections: open connections to all servers together.
    """

    model: str | None = None
    api_key: str | None = None
    probe_every: float = 1.0
    probe_timeout: float = 2.0
    compare_timeout: float = 30.0
    spill_tokens: int = 16_384
    retry_ratio: float = 0.1
    hedge_after: float | None = None
    connections: int = 256


@dataclass(frozen=True, slots=True)
class Pool:
    """What all judges on the same servers share: connections, the load of each server, and one allowance of retries."""

    client: httpx.AsyncClient
    traffic: Mapping[str, Traffic]
    budget: RetryBudget


def open_pool(urls: Sequence[str], options: PoolOptions) -> Pool:
    """Connects to nothing yet."""
    client = httpx.AsyncClient(
        headers={"authorization": f"Bearer {options.api_key}"} if options.api_key else {},
        limits=httpx.Limits(max_connections=options.connections, max_keepalive_connections=options.connections),
        event_hooks={"request": [_hand_on]},
        trust_env=False,  # servers are named one by one; a proxy of the environment is not meant
    )
    return Pool(client, {url.rstrip("/"): Traffic() for url in urls}, RetryBudget(options.retry_ratio))


async def _hand_on(request: httpx.Request) -> None:
    """Add the headers of the call that the request is for."""
    request.headers.update(HEADERS.get())
