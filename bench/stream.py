"""When the first verdicts of a request are there: Score beside ScoreStream, the embedded engine, nothing cached.

    .venv/bin/python bench/stream.py [--json FILE] [--items 64] [--requests 40] [--checkpoint FOLDER]

The same kind of request goes over both methods in turns, one at a time, each with a query of its own. Milliseconds,
medians over requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path

import grpc.aio
import uvloop

from bench.door_load import CORES
from bench.doors import bodies
from bench.serving import tierwise
from models.manifest import SHIPPED
from service.grpc.requests import score_message
from service.grpc.v1 import relevance_pb2 as pb
from service.grpc.v1.relevance_pb2_grpc import RelevanceStub
from service.schemas import ScoreBody

WARM_UP = 6


async def measure(port: int, items: int, requests: int) -> dict[str, float]:
    """Ask in turns."""
    times: dict[str, list[float]] = {"score_ms": [], "stream_first_ms": [], "stream_all_ms": []}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = RelevanceStub(channel)  # type: ignore[no-untyped-call] # generated
        for n, body in enumerate(bodies(2 * (requests + WARM_UP), items)):
            message = score_message(ScoreBody.model_validate(body))
            started = time.perf_counter()
            if n % 2:
                await stub.Score(message)
                found = {"score_ms": time.perf_counter() - started}
            else:
                found = {}
                async for part in stub.ScoreStream(iter([pb.ScoreStreamRequest(id="a", request=message)])):
                    assert part.WhichOneof("event") != "error", part
                    found.setdefault("stream_first_ms", time.perf_counter() - started)
                    found["stream_all_ms"] = time.perf_counter() - started
            if n >= 2 * WARM_UP:
                for name, seconds in found.items():
                    times[name].append(seconds * 1000.0)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    args = parser.parse_args()
    with (
        tierwise(args.checkpoint, core=CORES[0], threads=1, deadline_ms=60_000) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        found = {"items": args.items, **runner.run(measure(server.ports["grpc"], args.items, args.requests))}
    for name, value in found.items():
        print(f"{name:20} {value}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
