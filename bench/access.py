"""What it costs to know a caller, and to refuse one.

    .venv/bin/python bench/access.py [--json FILE] [--quick]

In microseconds, medians over rounds that take turns. `authenticate` alone, among one key and among ten thousand; then
whole requests through the guard and the log's layer, to an app that answers at once, without the network: an open door
(the peer), a good key, a wrong key, none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from service.access.authenticate import Access
from service.access.keys import key_hash, key_id, new_key
from service.access.roster import KeyRecord, Roster
from service.errors import UnauthenticatedError
from service.http.access import AccessLayer
from service.http.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PER_ROUND = 200


def roster_of(keys: list[str]) -> Roster:
    """All keys, of one tenant."""
    grant: dict[str, Any] = {"tenant": "shop", "scopes": ["score"]}
    records = [KeyRecord.model_validate({"id": key_id(k), "sha256": key_hash(k), **grant}) for k in keys]
    return Roster(keys=tuple({r.id: r for r in records}.values()))


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that reads nothing and says yes."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def request_with(access: Access, key: str | None) -> Callable[[], Any]:
    """One request to a guarded app."""
    layers: ASGIApp = AccessLayer(Guard(answer, access), lambda *_, **__: None)
    headers = [(b"host", b"tierwise"), (b"content-type", b"application/json"), (b"content-length", b"4194304")]
    if key:
        headers.append((b"authorization", f"Bearer {key}".encode()))

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        del message

    async def request() -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": headers, "query_string": b""}
        await layers(scope, receive, send)

    return request


def authentication(access: Access, key: str) -> Callable[[], Any]:
    """Authentication alone, as a coroutine like the others."""

    async def call() -> None:
        with contextlib.suppress(UnauthenticatedError):
            access.authenticate({"authorization": f"Bearer {key}"})

    return call


async def microseconds(call: Callable[[], Any]) -> float:
    """Of one call, over a round of them."""
    started = time.perf_counter()
    for _ in range(PER_ROUND):
        await call()
    return (time.perf_counter() - started) / PER_ROUND * 1e6


async def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Median and quartiles of each case."""
    keys = [new_key() for _ in range(10_000)]
    one, many = Access(roster_of(keys[:1])), Access(roster_of(keys))
    cases = {
        "authenticate, 1 key": authentication(one, keys[0]),
        "authenticate, 10,000 keys": authentication(many, keys[-1]),
        "authenticate, wrong key": authentication(many, new_key()),
        "request, open door": request_with(Access(), None),
        "request, good key": request_with(many, keys[-1]),
        "request, wrong key": request_with(many, new_key()),
        "request, no key": request_with(many, None),
    }
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, call in cases.items():
            seen[name].append(await microseconds(call))
    found = {}
    for name, values in seen.items():
        low, middle, high = statistics.quantiles(values[1:], n=4)
        found[name] = {"median_us": round(middle, 2), "low_us": round(low, 2), "high_us": round(high, 2)}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(10 if arguments.quick else 100))
    for name, row in found.items():
        print(f"{name:28} {row['median_us']:8.1f} us  ({row['low_us']:.1f} to {row['high_us']:.1f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
