"""What a JSON route costs without the network: ours beside FastAPI's own handling of the same bodies and replies.

    .venv/bin/python bench/route.py [--json FILE] [--items 32]

Both parse and validate the same request, and write the same reply of as many results; nothing is scored. Each request
runs through the whole ASGI app. Medians over rounds that take turns, in microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import uvloop
from fastapi import FastAPI
from starlette.requests import Request  # noqa: TC002 # FastAPI reads it when the app is built

from models.engines.port import ItemStatus
from service.access.authenticate import Access
from service.admission.admission import Admission
from service.http.access import AccessLayer
from service.http.guard import Guard
from service.http.route import JsonRoute
from service.reply import ItemResult, ScoreReply, Usage, Versions
from service.schemas import ScoreBody  # noqa: TC001 # as above
from service.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message

ROUNDS = 30
PER_ROUND = 50
TIERS = ("4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant")


def reply_of(items: int) -> ScoreReply:
    """A reply as large as a real one."""
    result = ItemResult(
        id="sku",
        index=0,
        status=ItemStatus.OK,
        tier=TIERS[0],
        label="4",
        band="Good",
        score=0.912345,
        margin=0.123456,
        probabilities=dict.fromkeys(TIERS, 0.25),
        label_mass=None,
        truncated=(),
        unrepresentable=(),
    )
    versions = Versions("tierwise-mini@0123456789ab", "0123456789ab", None, "0123456789ab")
    return ScoreReply("r", "tierwise-mini", versions, None, (result,) * items, (), {"total": 1.0}, Usage(1, 0, 1, 0))


def app_with(route_class: type[Any] | None, reply: ScoreReply) -> ASGIApp:
    """An app with one route; FastAPI's own handling when no route class is given."""
    settings = Settings()
    app = FastAPI()
    app.state.gateway = SimpleNamespace(settings=settings, admission=Admission(settings.admission, workers=1))
    if route_class is not None:
        app.router.route_class = route_class

    async def score(body: ScoreBody, request: Request) -> ScoreReply:
        del body, request
        return reply

    app.post("/v1/score")(score)
    return AccessLayer(Guard(app, Access()), lambda *_, **__: None)


async def call(app: ASGIApp, raw: bytes) -> None:
    """One request through the app; checks that it was answered."""
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": raw, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/score",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }
    await app(scope, receive, send)
    assert status == HTTPStatus.OK, status


async def measure(items: int) -> dict[str, float]:
    """Microseconds per request."""
    reply = reply_of(items)
    item = {"title": "Anker USB-C cable, 2 m, braided, black", "brand": "Anker", "attributes": {"length": "2"}}
    raw = json.dumps({"query": "usb c cable", "items": [{"id": str(n), **item} for n in range(items)]}).encode()
    contenders = {"ours": app_with(JsonRoute, reply), "fastapi": app_with(None, reply)}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, app in contenders.items():
            started = time.perf_counter()
            for _ in range(PER_ROUND):
                await call(app, raw)
            times[name].append((time.perf_counter() - started) / PER_ROUND * 1e6)
    figures = {f"{name}_us": round(statistics.median(values), 1) for name, values in times.items()}
    return {"items": items, **figures, "ratio": round(figures["fastapi_us"] / figures["ours_us"], 2)}


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--items", type=int, default=32)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(measure(args.items))
    for name, value in figures.items():
        print(f"{name:12} {value}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
