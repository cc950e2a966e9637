"""How many cached requests a second the doors answer, beside servers that do nothing but parse and answer the same.

    .venv/bin/python bench/door_load.py [--json FILE] [--items 32] [--seconds 2] [--rounds 5] [--quick]

Peers in the same run: a bare FastAPI route of the same models under the same uvicorn, and a bare grpc.aio service of
the same messages. Every server has the first core to itself and the generator the last; all get the same requests, in
turns. Requests are warmed, so that the cache answers. `busy` is the share of its core that a server used: well below
one, either the generator was the limit or others used the core. Ratios are medians over rounds, with their range.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import uvloop

from bench.doors import bodies
from bench.serving import Server, server, tierwise
from models.manifest import SHIPPED
from service.grpc.requests import score_message
from service.grpc.v1 import relevance_pb2 as pb
from service.grpc.v1 import relevance_pb2_grpc as stubs
from service.reply import ScoreReply
from service.schemas import ScoreBody

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CORES = sorted(os.sched_getaffinity(0))
CONNECTIONS = 16
REQUESTS = 64  # different ones, in turn
SCORE = "/tierwise.v1.Relevance/Score"
PEERS = ("fastapi", "echo")


@contextmanager
def peer(name: str, reply: bytes, folder: Path) -> Iterator[Server]:
    """A bare server that answers everything with one reply."""
    (folder / "reply").write_bytes(reply)
    command = [str(Path(__file__).resolve()), "--serve", name, "--reply", str(folder / "reply")]
    with server(command, lambda line: {name: line["port"]}, core=CORES[0]) as running:
        yield running


async def serve_fastapi(reply: bytes) -> None:
    """The bare route."""
    import uvicorn
    from fastapi import FastAPI
    from pydantic import TypeAdapter

    answer = TypeAdapter(ScoreReply).validate_json(reply)
    app = FastAPI()

    @app.post("/v1/score")
    async def score(body: ScoreBody) -> ScoreReply:
        del body
        return answer

    config = uvicorn.Config(app, port=0, http="httptools", lifespan="off", ws="none", log_config=None, access_log=False)
    running = uvicorn.Server(config)
    serving = asyncio.create_task(running.serve())
    while not running.started:  # noqa: ASYNC110 # uvicorn has no event for it
        await asyncio.sleep(0.01)
    print(json.dumps({"port": running.servers[0].sockets[0].getsockname()[1]}), flush=True)
    await serving


async def serve_echo(reply: bytes) -> None:
    """The bare service: gRPC parses the request and serialises the answer."""
    answer = pb.ScoreResponse.FromString(reply)

    class Echo(stubs.RelevanceServicer):
        async def Score(self, request: pb.ScoreRequest, context: Any) -> pb.ScoreResponse:  # noqa: N802 # gRPC's name
            del request, context
            return answer

    running = grpc.aio.server()
    stubs.add_RelevanceServicer_to_server(Echo(), running)  # type: ignore[no-untyped-call] # generated
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    print(json.dumps({"port": port}), flush=True)
    await running.wait_for_termination()


async def load_http(port: int, raws: Sequence[bytes], until: float) -> int:
    """Requests answered over all connections, each with one request in flight."""

    async def one(offset: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while time.monotonic() < until:
            raw = raws[(offset + count) % len(raws)]
            writer.write(b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(raw) + raw)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            count += 1
        writer.close()
        return count

    return sum(await asyncio.gather(*(one(n * 7) for n in range(CONNECTIONS))))


async def load_grpc(port: int, raws: Sequence[bytes], until: float) -> int:
    """The same over gRPC: bytes go out and come in as they are, so that the generator costs least."""

    async def one(offset: int) -> int:
        count = 0
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            call: Any = channel.unary_unary(SCORE)
            while time.monotonic() < until:
                assert await call(raws[(offset + count) % len(raws)])
                count += 1
        return count

    return sum(await asyncio.gather(*(one(n * 7) for n in range(CONNECTIONS))))


async def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start all four, warm them, load them in turns."""
    made = [ScoreBody.model_validate(body) for body in bodies(REQUESTS, args.items)]
    raws = {
        "http": [body.model_dump_json(exclude_none=True).encode() for body in made],
        "grpc": [score_message(body).SerializeToString() for body in made],
    }
    raws |= {"fastapi": raws["http"], "echo": raws["grpc"]}
    load = {"http": load_http, "fastapi": load_http, "grpc": load_grpc, "echo": load_grpc}
    with tierwise(args.checkpoint, core=CORES[0], threads=1, deadline_ms=60_000) as ours:
        reply = await first_reply(ours.ports["grpc"], raws["grpc"])
        json_reply, message_reply = reply
        with peer("fastapi", json_reply, folder) as fastapi, peer("echo", message_reply, folder) as echo:
            servers = {"http": ours, "grpc": ours, "fastapi": fastapi, "echo": echo}
            for name, generate in load.items():
                await generate(servers[name].ports[name], raws[name], time.monotonic() + 1.0)
            rates: dict[str, list[float]] = {name: [] for name in load}
            busy: dict[str, list[float]] = {name: [] for name in load}
            for _ in range(args.rounds):
                for name, serving in servers.items():
                    cpu, started = serving.processor_s(), time.monotonic()
                    count = await load[name](serving.ports[name], raws[name], started + args.seconds)
                    elapsed = time.monotonic() - started
                    rates[name].append(count / elapsed)
                    busy[name].append((serving.processor_s() - cpu) / elapsed)
    return figures(args.items, rates, busy)


async def first_reply(port: int, raws: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Have everything scored once; a reply as JSON and as a message."""
    from pydantic import TypeAdapter

    from service.grpc.replies import score_reply

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(SCORE)
        replies = [pb.ScoreResponse.FromString(await call(raw)) for raw in raws]
        again = pb.ScoreResponse.FromString(await call(raws[0]))
    assert again.usage.cached_items == len(again.results), "the cache does not answer"
    assert len({len(r.results) for r in replies}) == 1
    return TypeAdapter(ScoreReply).dump_json(score_reply(again)), again.SerializeToString()


def figures(items: int, rates: dict[str, list[float]], busy: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and ratios."""
    found: dict[str, Any] = {"cached_items": items}
    for ratio, ours, bare in (("cached_vs_bare", "http", "fastapi"), ("grpc_vs_echo", "grpc", "echo")):
        ratios = [a / b for a, b in zip(rates[ours], rates[bare], strict=True)]
        found[ratio] = round(statistics.median(ratios), 3)
        found[f"{ratio}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    found["requests_per_second"] = {name: round(statistics.median(values)) for name, values in rates.items()}
    # Of a processor, on a busy machine a fairer figure than requests a second.
    found["cpu_us_per_request"] = {name: round(1e6 * sum(busy[name]) / sum(rates[name]), 1) for name in rates}
    found["busy"] = {name: round(statistics.median(values), 2) for name, values in busy.items()}
    return found


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure, with this process on the last core."""
    if args.quick:
        args.seconds, args.rounds = 1.0, 2
    os.sched_setaffinity(0, {CORES[-1]})
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure(args, Path(folder)))


def options() -> argparse.ArgumentParser:
    """What can be chosen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--items", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--serve", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--reply", type=Path, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Parse arguments, measure, print."""
    args = options().parse_args()
    if args.serve:
        serve = {"fastapi": serve_fastapi, "echo": serve_echo}[args.serve]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(args.reply.read_bytes()))
        return
    found = run(args)
    for name, value in found.items():
        print(f"{name:30} {value}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
