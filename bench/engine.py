"""The embedded engine alone: items per second beside the machine's int8 matrix limit, latency, start, memory.

    .venv/bin/python bench/engine.py [--json FILE] [--threads 2] [--precision int8] [--checkpoint FOLDER] [--seconds 2]

Two workloads: `fixed`, 16 items of 64 tokens after a prefix of 64, and `demo`, the demo's own queries and products. No
two requests share a prefix, so every prefix is computed. `alone` sends one request at a time, `loaded` keeps eight
under way. In every round the same machine multiplies int8 matrices of a fixed list of shapes, with all threads, and

    matmul_fraction = items/s x FLOPs per item outside the embedding / best rate of that list

Weights that the engine skips (the first layer, which adds nothing) are not counted, attention and prefixes are not
either. `by_cpu_time` is the same quotient in seconds of processor time instead of the clock's, which other work on the
machine disturbs less. Medians over rounds with the range of the middle 90 %. Start and memory are measured in a process
of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.deadline import Deadline
from models.engines.onnx import OnnxEngine
from models.engines.onnx.architecture import read_architecture
from models.manifest import SHIPPED, load_manifest
from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from models.engines.port import Scores

ROUNDS = 7
UNDER_WAY = 8
SHAPES = ((1024, 384, 1536), (1024, 1536, 384), (1024, 384, 1152), (1024, 1024, 384))  # rows, K, N
NEVER = Deadline.never()

Request = tuple[list[int], list[list[int]]]


def fixed(vocabulary: int) -> Iterator[Request]:
    """16 items of 64 tokens after 64, other ids every time."""
    random = np.random.default_rng(1)
    while True:
        ids = random.integers(1000, vocabulary, (17, 64)).tolist()
        yield ids[0], ids[1:]


def demo(checkpoint: Path, vocabulary: int) -> Iterator[Request]:
    """The demo's requests, each time with one other token in the query so that its prefix is new."""
    from service.demo.candidates import QUERIES, candidates, read_catalogue
    from service.schemas import ScoreBody

    writer = PromptWriter(load_manifest(checkpoint), FieldTokenizer(checkpoint))
    random = np.random.default_rng(1)
    requests = []
    for query in QUERIES:
        body = {"query": query, "items": candidates(query, read_catalogue())}
        items = [c.item for c in ScoreBody.model_validate(body).request().candidates]
        prompt = writer.write(query, None, items)
        requests.append((list(prompt.prefix.ids), [list(s.ids) for s in prompt.suffixes]))
    for prefix, suffixes in itertools.cycle(requests):
        yield [*prefix[:-1], int(random.integers(1000, vocabulary))], suffixes


@dataclass(frozen=True)
class Rate:
    """Work per second of the clock, and per second of processor time."""

    clock: float
    processor: float


class Stopwatch:
    """Starts when made."""

    def __init__(self) -> None:
        self._clock, self._processor = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """By the clock."""
        return time.perf_counter() - self._clock

    def rate(self, work: float) -> Rate:
        """Work done since the start, per second."""
        return Rate(work / self.seconds, work / (time.process_time() - self._processor))


def best(rates: Iterable[Rate]) -> Rate:
    """The highest of each."""
    found = list(rates)
    return Rate(max(r.clock for r in found), max(r.processor for r in found))


def int8_rate(threads: int) -> Rate:
    """Operations per second of the best shape: one product per thread side by side, or all threads on one."""
    ways = {(1, threads), (threads, 1)}
    return best(_rate(shape, *way) for shape in SHAPES for way in ways)


def _rate(shape: tuple[int, int, int], threads_each: int, side_by_side: int, repeats: int = 8) -> Rate:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, depth, columns = shape
    weight = np.random.default_rng(0).integers(-127, 128, (depth, columns)).astype(np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w", "zero"], ["y"])],
        "rate",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [rows, depth])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [rows, columns])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(128, np.uint8), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads_each
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {"x": np.random.default_rng(0).integers(0, 256, (rows, depth)).astype(np.uint8)}

    def work() -> None:
        for _ in range(repeats):
            session.run(None, feed)

    def once() -> Rate:
        workers = [threading.Thread(target=work) for _ in range(side_by_side)]
        watch = Stopwatch()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return watch.rate(2.0 * rows * depth * columns * repeats * side_by_side)

    once()
    return best(once() for _ in range(3))


async def items_per_s(
    engine: OnnxEngine, requests: Iterator[Request], seconds: float, callers: int
) -> tuple[Rate, list[float]]:
    """That many callers, each with one request under way: (items per second, milliseconds of each request)."""
    took: list[float] = []
    items = 0
    watch = Stopwatch()

    async def caller() -> None:
        nonlocal items
        while watch.seconds < seconds:
            prefix, suffixes = next(requests)
            one = Stopwatch()
            _all_ok(await engine.score(prefix, suffixes, NEVER))
            took.append(one.seconds * 1000)
            items += len(suffixes)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return watch.rate(items), took


def _all_ok(scores: Scores) -> None:
    assert set(scores.status) == {"ok"}, scores.status


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and the range of the middle 90 %."""
    low, high = np.quantile(values, [0.05, 0.95])
    return {
        name: round(float(v), 4) for name, v in (("median", statistics.median(values)), ("low", low), ("high", high))
    }


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All rounds."""
    architecture = read_architecture(args.checkpoint)
    engine = OnnxEngine.load(
        args.checkpoint, load_manifest(args.checkpoint), precision=args.precision, threads=args.threads
    )
    await engine.warm_up()
    a = architecture
    active = a.layers - (1 if a.family == "opt" and not a.pre_norm else 0)  # the first layer carries BERT's norm alone
    weights = active * (2 * a.width * a.head_size * (a.heads + a.key_heads) + 2 * a.width * a.inner)
    loads = {"fixed": fixed(a.vocabulary), "demo": demo(args.checkpoint, a.vocabulary)}
    tokens = {name: _tokens_per_item(requests) for name, requests in loads.items()}
    rates: list[Rate] = []
    rows: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in loads}
    for _ in range(ROUNDS):
        rate = int8_rate(args.threads)
        rates.append(rate)
        for name, requests in loads.items():
            flops = 2 * weights * tokens[name]
            for suffix, callers in (("", UNDER_WAY), ("_alone", 1)):
                items, took = await items_per_s(engine, requests, args.seconds, callers)
                rows[name][f"items_per_s{suffix}"].append(items.clock)
                rows[name][f"ms{suffix}"] += took
                rows[name][f"matmul_fraction{suffix}"].append(items.clock * flops / rate.clock)
                rows[name][f"by_cpu_time{suffix}"].append(items.processor * flops / rate.processor)
    await engine.close()
    return {
        "threads": args.threads,
        "engine": engine.name,
        "weights_outside_embedding": weights,
        "int8_gops": spread([rate.clock / 1e9 for rate in rates]),
        **{
            name: {"tokens_per_item": round(tokens[name], 1), **{key: spread(row[key]) for key in row}}
            for name, row in rows.items()
        },
    }


def _tokens_per_item(requests: Iterator[Request]) -> float:
    """Suffix tokens per item; the prefix is not counted, it is the engine's own overhead."""
    first = list(itertools.islice(requests, 12))
    return sum(len(s) for _, suffixes in first for s in suffixes) / sum(len(suffixes) for _, suffixes in first)


def start(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds from a new process to its first answer, with and without built graphs, and its memory after a load."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TIERWISE_CACHE_DIR": cache}
        command = [sys.executable, __file__, "--child", "--checkpoint", str(args.checkpoint)]
        command += ["--threads", str(args.threads), "--precision", args.precision]
        runs = []
        for _ in range(4):
            began = time.time()
            ended = subprocess.run(  # noqa: S603 # this file, in a new process
                command, env=environment, check=True, capture_output=True, text=True
            )
            child = json.loads(ended.stdout)
            runs.append({"ready_s": child["ready_at"] - began, "rss_mb": child["rss_mb"]})
    return {
        "cold_s": round(runs[0]["ready_s"], 2),
        "ready_s": round(statistics.median(run["ready_s"] for run in runs[1:]), 2),
        "rss_mb": round(max(run["rss_mb"] for run in runs)),
    }


async def child(args: argparse.Namespace) -> dict[str, float]:
    """What `start` runs in the new process."""
    engine = OnnxEngine.load(
        args.checkpoint, load_manifest(args.checkpoint), precision=args.precision, threads=args.threads
    )
    await engine.warm_up()
    ready = time.time()
    vocabulary = read_architecture(args.checkpoint).vocabulary
    for requests in (fixed(vocabulary), demo(args.checkpoint, vocabulary)):
        await items_per_s(engine, requests, args.seconds, UNDER_WAY)
    async for _ in engine.explain([1000], [1001], NEVER, label=1002, max_tokens=8):
        pass
    await engine.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    return {"ready_at": ready, "rss_mb": peak / 1024}


def main() -> None:
    """Print a table; write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["int8", "float32"], default="int8")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(asyncio.run(child(args))))
        return
    result = asyncio.run(measure(args)) | start(args)
    for key, value in result.items():
        if isinstance(value, dict) and "median" not in value:
            print(key)
            for name, figure in value.items():
                print(f"  {name:26} {figure}")
        else:
            print(f"{key:28} {value}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
