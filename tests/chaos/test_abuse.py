"""Thousands of random, abandoned and malformed requests, and then a right answer. After mosec's test of that kind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.chaos.conftest import LONG, QUICK_HEALTH, calling, until
from tests.chaos.footprint import footprint_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REQUESTS = 10_000 if LONG else 500
AT_A_TIME = 32
MEGABYTE = 2**20
MOST_GROWTH = 40  # megabytes in the second half
PATHS = ("/v1/score", "/v1/explain", "/v1/rerank", "/v2/rerank", "/v1/models", "/livez", "/nowhere", "/v1/score/../x")


def post(path: str, content: bytes, *headers: str) -> bytes:
    """A whole request."""
    lines = [f"POST {path} HTTP/1.1", "host: t", f"content-length: {len(content)}", *headers]
    if not any(line.startswith("content-type") for line in headers):
        lines.append("content-type: application/json")
    return "\r\n".join([*lines, "", ""]).encode() + content


def text(chance: random.Random, most: int) -> str:
    """Any characters, pairs of surrogates and control characters among them."""
    kinds = ("abc ", "äöüß漢字", "\x00\x1b\n\r\t", "[SEP]</s><|endoftext|>", "😀\u200b\ufeff")
    return "".join(chance.choice(chance.choice(kinds)) for _ in range(chance.randrange(most)))


def scored(chance: random.Random, body: dict[str, Any]) -> bytes:
    """A good request, often with hardly any time."""
    return post("/v1/score", json.dumps({**body, "deadline_ms": chance.choice((0.01, 5, 50, 20_000))}).encode())


def random_texts(chance: random.Random, body: dict[str, Any]) -> bytes:
    """Fields of any text and length."""
    del body
    items = [
        {"id": text(chance, 40) or "x", "title": text(chance, 200), "description": text(chance, 3000)}
        for _ in range(chance.randrange(12))
    ]
    return post(chance.choice(PATHS[:2]), json.dumps({"query": text(chance, 300), "items": items}).encode())


def random_json(chance: random.Random, body: dict[str, Any]) -> bytes:
    """Well-formed, and not what was asked for."""
    del body

    def value(depth: int) -> object:
        kinds: tuple[Callable[[], object], ...] = (
            lambda: chance.choice((None, True, False, -1, 1e308, 0, "", "query")),
            lambda: text(chance, 20),
            lambda: [value(depth + 1) for _ in range(chance.randrange(4))],
            lambda: {chance.choice(("query", "items", "id", "title", "x")): value(depth + 1) for _ in range(3)},
        )
        return chance.choice(kinds[:2] if depth > 5 else kinds)()

    return post(chance.choice(PATHS), json.dumps(value(0)).encode())


def broken_json(chance: random.Random, body: dict[str, Any]) -> bytes:
    """Bytes missing, doubled or turned."""
    content = bytearray(json.dumps(body).encode())
    for _ in range(chance.randrange(1, 5)):
        place = chance.randrange(len(content))
        content[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
    return post("/v1/score", bytes(content) or b"{")


def deep_json(chance: random.Random, body: dict[str, Any]) -> bytes:
    """Brackets without end."""
    del body
    return post("/v1/score", b'{"query":' + b"[" * chance.randrange(10, 50_000))


def too_large(chance: random.Random, body: dict[str, Any]) -> bytes:
    """More than is taken, by its own account."""
    del body
    return post("/v1/score", b" " * 1000, f"content-length: {chance.randrange(5, 900) * MEGABYTE}")


def no_http(chance: random.Random, body: dict[str, Any]) -> bytes:
    """Any bytes."""
    del body
    return chance.randbytes(chance.randrange(1, 2000)) + b"\r\n\r\n"


def wrong_headers(chance: random.Random, body: dict[str, Any]) -> bytes:
    """A good body under headers that are none."""
    wrong = (
        "content-type: text/html",
        "content-encoding: gzip",
        "x-request-deadline-ms: soon",
        "x-request-deadline-ms: -5",
        "x-request-id: " + "x" * 5000,
        "authorization: Bearer \x01",
        "traceparent: 00-zz",
    )
    return post("/v1/score", json.dumps(body).encode(), chance.choice(wrong))


KINDS = (scored, scored, random_texts, random_json, broken_json, deep_json, too_large, no_http, wrong_headers)


async def send(port: int, chance: random.Random, body: dict[str, Any], seen: Counter[str]) -> None:
    """One request: read to its answer, or left at any point."""
    kind = chance.choice(KINDS)
    request = kind(chance, body)
    manner = chance.choice(("whole", "whole", "whole", "in pieces", "cut short", "left at once", "left later"))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        seen["not accepted"] += 1
        return
    with contextlib.suppress(OSError):
        if manner == "cut short":
            writer.write(request[: chance.randrange(len(request))])
        elif manner == "in pieces":
            for start in range(0, len(request), 1 + len(request) // 4):
                writer.write(request[start : start + 1 + len(request) // 4])
                await asyncio.sleep(chance.random() * 0.02)
        else:
            writer.write(request)
        await writer.drain()
        if manner in {"whole", "in pieces"} and kind is not too_large:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(30):
                    status = (await reader.readline()).split()[1:2]
                    seen[status[0].decode() if status else "closed"] += 1
        else:
            seen["left"] += 1
            await asyncio.sleep(chance.random() * 0.05 if manner == "left later" else 0)
    if chance.random() < 0.5:
        writer.transport.abort()
    writer.close()


async def test_after_any_number_of_bad_requests_comes_a_right_answer(folder: Path, body: dict[str, Any]) -> None:
    """No status but those documented, no connection and no memory kept, ready, and the same scores as before."""
    limits = {"body_bytes": 4 * MEGABYTE}
    cache = {"memory_bytes": MEGABYTE}
    async with calling(folder, limits=limits, cache=cache, deadline_ms=60_000, health=QUICK_HEALTH) as caller:
        right = await caller.score(body)
        port = urlsplit(caller.service.http).port
        assert port is not None
        seen: Counter[str] = Counter()
        prints = [footprint_of(caller.service.process.pid)]
        for half in range(2):
            chances = [random.Random(n) for n in range(half * REQUESTS // 2, (half + 1) * REQUESTS // 2)]
            await asyncio.gather(*(work(port, chances, body, seen) for _ in range(AT_A_TIME)))
            prints.append(footprint_of(caller.service.process.pid))
        assert set(seen) <= {
            *("200", "400", "401", "404", "405", "408", "413", "415", "422", "429", "431", "503", "504"),
            *("closed", "left"),
        }, seen
        assert seen["200"]
        await caller.until_ready()
        assert (await caller.score(body)).verdicts == right.verdicts
        most = prints[0].descriptors + 4
        await until(lambda: footprint_of(caller.service.process.pid).descriptors <= most)
        resident = [p.resident / MEGABYTE for p in prints]
        assert resident[2] - resident[1] < MOST_GROWTH  # the first half also fills caches and allocators' pools
        assert not any("exception" in line for line in caller.service.lines), caller.service.lines
        memory = " to ".join(f"{size:.0f}" for size in resident)
        print(f"abuse: {REQUESTS} requests, {dict(seen)}, memory {memory} MB")  # noqa: T201


async def work(port: int, chances: list[random.Random], body: dict[str, Any], seen: Counter[str]) -> None:
    """Send one after the other."""
    while chances:
        await send(port, chances.pop(), body, seen)
