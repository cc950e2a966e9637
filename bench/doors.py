"""What the HTTP door adds to the engine: the same requests over HTTP and straight into the engine, turn by turn.

    .venv/bin/python bench/doors.py [--json FILE] [--items 4] [--requests 200] [--quick] [--checkpoint FOLDER]

Starts `tierwise serve` in a process of its own and the same engine in this one, and asks each in turn about the same
query and products of the demo's sample, one request at a time. No two requests share a query, so no cache answers.
Medians come with 95 % intervals from resampling requests. Then cached requests a second: bench/door_load.py.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
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
    with tierwise(args.checkpoint, threads=args.threads) as ours:
        connection = http.client.HTTPConnection("127.0.0.1", ours.ports["http"])
        for n, body in enumerate(bodies(args.requests + WARM_UP, args.items)):
            raw = json.dumps(body)
            request = ScoreBody.model_validate(body).request()
            prompt = writer.write(request.query, None, [c.item for c in request.candidates])
            suffixes = [s.ids for s in prompt.suffixes]

            started = time.perf_counter()
            connection.request("POST", "/v1/score", raw, {"content-type": "application/json"})
            reply = json.loads(connection.getresponse().read())
            http_ms = (time.perf_counter() - started) * 1000.0
            assert not reply["degraded"], reply

            started = time.perf_counter()
            await engine.score(prompt.prefix.ids, suffixes, Deadline.never())
            engine_ms = (time.perf_counter() - started) * 1000.0

            if n >= WARM_UP:
                over_http.append(http_ms)
                in_engine.append(engine_ms)
                around.append(http_ms - reply["timings_ms"]["score"])
                for stage, milliseconds in reply["timings_ms"].items():
                    stages.setdefault(stage, []).append(milliseconds)
        connection.close()
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
