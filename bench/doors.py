"""What the HTTP door adds to the engine: the same requests over HTTP and straight into the engine, turn by turn.

    .venv/bin/python bench/doors.py [--json FILE] [--items 4] [--requests 200] [--quick] [--checkpoint FOLDER]

Starts `tierwise serve` in a process of its own and the same engine in this one, and asks each in turn about the same
query and products of the demo's sample, one request at a time. No two requests share a query, so no cache answers.
The clock stops at the last byte of the answer; what the caller's own JSON reader takes after that is a stage of its
own, `client`, and in no other figure. `http` is what the service's clock does not see: sockets, HTTP, writing JSON.
Medians come with 95 % intervals from resampling requests. Then cached requests a second: bench/door_load.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.serving import tierwise
from models.deadline import Deadline
from models.engines.onnx import OnnxEngine
from models.manifest import SHIPPED, load_manifest
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer
from service.demo.candidates import read_catalogue
from service.schemas import ScoreBody

if TYPE_CHECKING:
    from collections.abc import Sequence

WARM_UP = 20
RESAMPLES = 1000


def bodies(count: int, items: int, seed: int = 1) -> list[dict[str, Any]]:
    """Requests as a caller sends them: a query of title words, and products."""
    chance = random.Random(seed)
    products = read_catalogue()
    made = []
    for _ in range(count):
        chosen = chance.sample(products, items)
        words = chance.choice(chosen)["title"].split()
        at = chance.randrange(max(1, len(words) - 2))
        query = " ".join([*words[at : at + 3], str(chance.randrange(10_000))])
        made.append({"query": query, "items": chosen, "deadline_ms": 60_000})
    return made


class Caller:
    """One connection. It does the least that HTTP asks for: what a client library adds is not the service's."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, body: bytes) -> bytes:
        """The body of the answer to `POST /v1/score`."""
        head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self._socket.sendall(head % len(body) + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._receive()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._receive()
        return body

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _receive(self) -> bytes:
        part = self._socket.recv(2**16)
        assert part, "the service hung up"
        return part


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the comparison; milliseconds."""
    manifest = load_manifest(args.checkpoint)
    writer = PromptWriter(manifest, FieldTokenizer(args.checkpoint))
    engine = OnnxEngine.load(args.checkpoint, manifest, threads=args.threads)
    await engine.warm_up()
    over_http: list[float] = []
    in_engine: list[float] = []
    around: list[float] = []  # of a request, all that is not the engine's own answer
    stages: dict[str, list[float]] = {}
    with tierwise(args.checkpoint, threads=args.threads, deadline_ms=60_000) as ours:
        caller = Caller(ours.ports["http"])
        for n, body in enumerate(bodies(args.requests + WARM_UP, args.items)):
            raw = json.dumps(body).encode()
            request = ScoreBody.model_validate(body).request()
            prompt = writer.write(request.query, None, [c.item for c in request.candidates])
            suffixes = [s.ids for s in prompt.suffixes]

            started = time.perf_counter()
            answer = caller.ask(raw)
            answered = time.perf_counter()
            reply = json.loads(answer)
            client_ms = (time.perf_counter() - answered) * 1000.0
            http_ms = (answered - started) * 1000.0
            assert not reply["degraded"], reply

            started = time.perf_counter()
            await engine.score(prompt.prefix.ids, suffixes, Deadline.never())
            engine_ms = (time.perf_counter() - started) * 1000.0

            if n >= WARM_UP:
                over_http.append(http_ms)
                in_engine.append(engine_ms)
                timings = reply["timings_ms"]
                around.append(http_ms - timings["score"])
                timings |= {"http": http_ms - timings["total"], "client": client_ms}
                for stage, milliseconds in timings.items():
                    stages.setdefault(stage, []).append(milliseconds)
        caller.close()
    await engine.close()
    ratio = statistics.median(over_http) / statistics.median(in_engine)
    return {
        "items": args.items,
        "requests": args.requests,
        "http_vs_engine_p50": round(ratio, 3),
        "http_vs_engine_p50_interval": interval(over_http, in_engine),
        "p50_ms": round(statistics.median(over_http), 3),
        "p99_ms": round(quantile(over_http, 0.99), 3),
        "engine_p50_ms": round(statistics.median(in_engine), 3),
        "engine_p99_ms": round(quantile(in_engine, 0.99), 3),
        "service_p50_ms": round(statistics.median(around), 3),
        "stages_p50_ms": {stage: round(statistics.median(values), 3) for stage, values in stages.items()},
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def interval(over_http: Sequence[float], in_engine: Sequence[float]) -> list[float]:
    """95 % interval of the ratio of medians; requests are resampled in pairs."""
    chance = random.Random(1)
    pairs = list(zip(over_http, in_engine, strict=True))
    ratios = []
    for _ in range(RESAMPLES):
        drawn = chance.choices(pairs, k=len(pairs))
        ratios.append(statistics.median(h for h, _ in drawn) / statistics.median(e for _, e in drawn))
    return [round(quantile(ratios, 0.025), 3), round(quantile(ratios, 0.975), 3)]


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--items", type=int, default=4)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quick", action="store_true", help="fewer requests, shorter load")
    args = parser.parse_args()
    if args.quick:
        args.requests = min(args.requests, 60)
    figures = asyncio.run(measure(args))
    from bench import door_load  # it takes its requests from here

    figures |= door_load.run(door_load.options().parse_args(["--quick"] if args.quick else []))
    for name, value in figures.items():
        print(f"{name:30} {value}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
