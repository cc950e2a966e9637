"""Small real HTTP servers that speak vLLM's dialect, well or badly, and a checkpoint folder for the gateway's side."""

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from models.engines.vllm_server import VllmServerEngine
from models.engines.vllm_server.pool import PoolOptions
from models.manifest import Canary, CanaryItem, Manifest, PromptTemplate, RationaleMarkers, Segment, Tier
from models.tiers import judge, softmax
from models.tokenizer import FieldTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[L4]", "[L3]", "[L2]", "[L1]", "[END]"]
LABELS = (4, 5, 6, 7)
END = 8
FAULTS = {
    "error": (500, b"Internal Server Error"),
    "busy": (503, b"queue full"),
    "garbage": (200, b"\x00<html>not what you asked for</html>"),
    "refuse": (400, b'{"error": {"message": "unknown parameter"}}'),
}
FAST = PoolOptions(probe_every=0.05, probe_timeout=0.2, compare_timeout=5.0)


def logprobs(prompt: Sequence[int]) -> list[float]:
    """What a well-behaved server says: fixed by the prompt's ids, one clear winner, 98 % of the mass on labels."""
    digest = hashlib.blake2b(json.dumps(list(prompt)).encode(), digest_size=4).digest()
    logits = np.array([byte / 32 for byte in digest])
    logits[digest[0] % 4] += 24.0
    values: list[float] = (logits - np.log(np.exp(logits).sum()) + math.log(0.98)).tolist()
    return values


class Peer:
    """One server. `mode` may change while it runs; `bodies` and `headers` hold every completion request."""

    def __init__(self, tokenizer: FieldTokenizer, *, max_model_len: int = 512) -> None:
        self.mode = "good"
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answered = 0
        self.broken_off = 0
        self.model = "judge"
        self.adapters: dict[str, int] = {}  # name and rotation of what else it serves
        self.max_model_len = max_model_len
        self.delay = 0.0
        self.rotation = 0
        self.softness = 1.0
        self.takes_priority = True
        self.token_offset = 0
        self.decoded = [40, 41, END]
        self._tokenizer = tokenizer
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections from now on and drop the open ones."""
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def scored(self) -> list[dict[str, Any]]:
        """Requests for labels that were not probes or comparisons: more than one prompt."""
        return [body for body in self.bodies if isinstance(body["prompt"][0], list) and len(body["prompt"]) > 2]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        path = head[0].split(" ")[1]
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        if path == "/v1/completions":
            self.bodies.append(body)
            self.headers.append(headers)
            if not await self._patience(reader):
                return False
        status, content = self._reply(path, body)
        lines = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        if self.mode == "half" and path == "/v1/completions":
            writer.write(lines.encode() + content[: len(content) // 2])
            await writer.drain()
            return False
        writer.write(lines.encode() + content)
        await writer.drain()
        if path == "/v1/completions":
            self.answered += status == 200
        return True

    async def _patience(self, reader: asyncio.StreamReader) -> bool:
        """Wait as the mode says; notice a caller who leaves, as vLLM does."""
        wait = math.inf if self.mode == "hang" else self.delay
        gone = asyncio.ensure_future(reader.read(1))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(gone), None if wait == math.inf else max(wait, 1e-4))
            self.broken_off += 1
            return False
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        return True

    def _reply(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        match path:
            case "/v1/models":
                base = {"id": self.model, "max_model_len": self.max_model_len}
                return 200, _json({"data": [base, *({"id": name, "parent": self.model} for name in self.adapters)]})
            case "/tokenize":
                return 200, _json({"tokens": [i + self.token_offset for i in self._tokenizer.literal(body["prompt"])]})
            case "/detokenize":
                return 200, _json({"prompt": self._tokenizer.decode([body["tokens"][0] + self.token_offset])})
        if "priority" in body and not self.takes_priority:
            return 400, _json({"error": {"message": "Got priority but priority scheduling is not enabled"}})
        if self.mode in FAULTS:
            return FAULTS[self.mode]
        return (200, self._events()) if body.get("stream") else (200, self._completion(body))

    def _completion(self, body: dict[str, Any]) -> bytes:
        labels = body["logprob_token_ids"]
        choices = []
        for index, prompt in enumerate(body["prompt"]):
            values = self._logprobs(prompt, self.adapters.get(body["model"], self.rotation))
            if self.mode == "nan":
                values[0] = math.nan
            offset = 100 if self.mode == "other-labels" else 0
            found = {f"token_id:{label + offset}": value for label, value in zip(labels, values, strict=True)}
            choices.append({"index": index, "text": "", "logprobs": {"top_logprobs": [found]}})
        if self.mode == "one-short":
            choices = choices[:-1]
        usage = {"prompt_tokens": sum(map(len, body["prompt"])), "prompt_tokens_details": None}
        return _json({"choices": choices[::-1], "usage": usage})

    def _logprobs(self, prompt: Sequence[int], rotation: int) -> list[float]:
        values = np.roll(np.array(logprobs(prompt)) / self.softness, rotation)
        said: list[float] = (values - np.log(np.exp(values).sum()) + math.log(0.98)).tolist()
        return said

    def _events(self) -> bytes:
        chunks = [{"choices": [{"text": "x", "token_ids": [token]}]} for token in self.decoded]
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        return (events + ("" if self.mode == "breaks-off" else "data: [DONE]\n\n")).encode()


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds, or fail."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another party and sets no event
            await asyncio.sleep(0.01)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder as a gateway has it: a tokenizer and no weights."""
    words = ["red", "shoe", "lace", "phone", "case", "ssd", "disk", "is", "it", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    vocabulary = {
        token: n for n, token in enumerate([*SPECIAL, *words, *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")])
    }
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token, not a secret
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    """Four tiers, two canaries whose tiers and probabilities are what a good `Peer` says."""
    names = ["4-Excellent", "3-Related", "2-Mismatch", "1-Irrelevant"]
    bands = ["Good", "Good", "Mid", "Bad"]
    prompt = PromptTemplate(
        prefix=(Segment(text="[CLS]"), Segment(field="query")),
        suffix=(Segment(text="[SEP]", field="title"), Segment(text="[END]")),
        budgets={"query": 16, "title": 32},
    )
    bare = Manifest(
        name="test",
        tiers=tuple(
            Tier.model_validate({"name": n, "label": f"[L{4 - i}]", "token_id": LABELS[i], "band": b})
            for i, (n, b) in enumerate(zip(names, bands, strict=True))
        ),
        prompt=prompt,
        prompt_hash=prompt.hash,
        max_tokens=256,
        beta=0.5,
        rationale=RationaleMarkers(category="c", attributes="a", context="x", reason="r", end_token_id=END),
        files={},
    )
    canaries = []
    tokenizer = FieldTokenizer(folder)
    for query, title in (("red shoe", "shoe red lace"), ("ssd", "phone case")):
        ids = [2, *tokenizer.literal(query), 3, *tokenizer.literal(title), END]
        row = np.array([logprobs(ids)], dtype=np.float32)
        canaries.append(
            Canary(
                query=query,
                item=CanaryItem(title=title),
                tier=names[judge(row, beta=0.5).tiers[0]],
                probabilities=tuple(softmax(row)[0].tolist()),
            )
        )
    return bare.model_copy(update={"canaries": tuple(canaries)})


@pytest.fixture
async def peers(folder: Path) -> AsyncIterator[list[Peer]]:
    """Three good servers."""
    servers = [Peer(FieldTokenizer(folder)) for _ in range(3)]
    for server in servers:
        await server.start()
    yield servers
    for server in servers:
        await server.stop()


@pytest.fixture
async def pool(peers: list[Peer], manifest: Manifest, folder: Path) -> AsyncIterator[Callable[..., VllmServerEngine]]:
    """Make an engine over some of the peers; closed at the end of the test."""
    engines: list[VllmServerEngine] = []

    def make(*servers: Peer, options: PoolOptions = FAST) -> VllmServerEngine:
        engine = VllmServerEngine([s.url for s in servers or peers], manifest, folder=folder, options=options)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        await engine.close()


def turned_canaries(manifest: Manifest) -> tuple[Canary, ...]:
    """Canaries of a judge that says what this one says, one tier further down: a peer's adapter turned by one."""
    names = [tier.name for tier in manifest.tiers]
    return tuple(
        canary.model_copy(
            update={
                "tier": names[(names.index(canary.tier) + 1) % len(names)],
                "probabilities": tuple(np.roll(canary.probabilities, 1).tolist()),
            }
        )
        for canary in manifest.canaries
    )
