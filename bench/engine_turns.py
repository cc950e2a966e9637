"""Peers in processes of their own that stay alive and measure in turns, so that a busy minute is busy for all of them.

One line of JSON each way: the parent asks for a slice of one cell, the child answers with the times it took. Between
its turns a peer only waits. Each peer leads a process group, which ends as a whole: when it fails, when it is closed,
and when its parent is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import numpy as np

from bench.engine_requests import Cell, load_requests, memory_mb, times

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.engine_requests import Peer
    from bench.engine_settings import Setting

ROUNDS: Final = 3
_PROGRAM: Final = Path(__file__).resolve().parent / "engine_peers.py"
_STRIDE: Final = 1000  # between the first requests of two slices
_START_SECONDS: Final = 900.0
_ANSWER_SECONDS: Final = 300.0  # beyond what was asked for
_END_SECONDS: Final = 15.0  # to end by itself


class PeerError(Exception):
    """A peer cannot take part any more; the others can."""


class Child:
    """The parent's side of one peer in one setting, which starts at once.

    Attributes:
        peer, setting: their names.
        ready: what it says of itself; empty until `wait`.
        failure: why it is out; empty while it is not.
    """

    def __init__(self, peer: str, checkpoint: Path, setting: Setting) -> None:
        self.peer, self.setting = peer, setting.label
        self.ready: dict[str, Any] = {}
        self.failure = ""
        self._slices = 0
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        command = [sys.executable, str(_PROGRAM), peer, "--checkpoint", str(checkpoint), *setting.arguments]
        print(f"{time.strftime('%H:%M:%S')} {self.name}", file=sys.stderr, flush=True)
        self._process = subprocess.Popen(  # noqa: S603 - this project's own command
            command,
            env=os.environ | setting.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    @property
    def name(self) -> str:
        """Peer and setting."""
        return f"{self.peer} ({self.setting})" if self.setting else self.peer

    def wait(self) -> None:
        """Return when it is ready.

        Raises:
            PeerError: it does not start.
        """
        self.ready = self._read(_START_SECONDS)

    def times(self, items: int, prefix: str, seconds: float) -> list[float]:
        """One slice of one cell: seconds of each request.

        Raises:
            PeerError: it failed.
        """
        self._slices += 1
        asked = {"items": items, "prefix": prefix, "seconds": seconds, "slice": self._slices}
        found: list[float] = self._ask(asked, seconds + _ANSWER_SECONDS)
        return found

    def memory_mb(self) -> float:
        """Of the peer and all that it started.

        Raises:
            PeerError: it failed.
        """
        return float(self._ask({}, _ANSWER_SECONDS))

    def close(self) -> None:
        """Let it end by itself, then end what is left."""
        self._hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started, now. Idempotent."""
        self._end()
        self._hang_up()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def fail(self, why: str) -> None:
        """It is out, for this reason."""
        self.failure = why
        print(f"{time.strftime('%H:%M:%S')} {self.name} is out: {why}", file=sys.stderr, flush=True)
        self.kill()

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _ask(self, what: dict[str, Any], limit: float) -> Any:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reading says why
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        return self._read(limit)

    def _read(self, limit: float) -> Any:
        assert self._process.stdout is not None
        clock = threading.Timer(limit, self._end)
        clock.start()
        began = time.monotonic()
        try:
            line = self._process.stdout.readline()
        finally:
            clock.cancel()
        late = time.monotonic() - began >= limit
        answer = json.loads(line) if line else {"error": self._last_words(limit, late=late)}
        if isinstance(answer, dict) and "error" in answer:
            self._errors.seek(0)
            print(self._errors.read()[-3000:], file=sys.stderr, flush=True)
            self.fail(answer["error"])
            raise PeerError(answer["error"])
        return answer

    def _last_words(self, limit: float, *, late: bool) -> str:
        if late:
            return f"no answer within {limit:.0f} s"
        self._errors.seek(0)
        return f"ended; its last line: {self._errors.read().strip().rpartition(chr(10))[2][-300:]}"


def in_turns(
    children: Sequence[Child], keys: Sequence[tuple[int, str]], seconds: float
) -> Iterator[dict[Child, list[Cell]]]:
    """Measure every cell of every peer for so long, in ROUNDS slices, one peer after the other.

    Yields:
        What is known after each round, of those that did not fail.
    """
    taken: dict[tuple[Child, tuple[int, str]], list[float]] = defaultdict(list)
    for turn in range(ROUNDS):
        for key in keys:
            for child in [*children[turn:], *children[:turn]]:
                if not child.failure:
                    with contextlib.suppress(PeerError):
                        taken[child, key] += child.times(*key, seconds / ROUNDS)
        yield {child: [Cell.of(*key, taken[child, key]) for key in keys] for child in children if not child.failure}


def reply_channel() -> TextIO:
    """Standard output for the parent alone: whatever else writes there goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


async def serve(peer: Peer, checkpoint: Path, replies: TextIO) -> None:
    """The child's side: start, answer until the parent hangs up, stop. A failure is told to the parent."""
    questions = _questions()
    try:
        began = time.perf_counter()
        await peer.start()
        ready = time.perf_counter() - began
        sample = np.asarray(await peer.score(load_requests(checkpoint, 8)[0], "sample")).tolist()
        print(json.dumps({"ready_s": ready, "sample": sample, "url": getattr(peer, "url", None)}), file=replies)
        requests = {}
        while line := await questions.get():
            asked = json.loads(line)
            if not asked:
                print(json.dumps(memory_mb()), file=replies)
                continue
            items = asked["items"]
            if items not in requests:
                requests[items] = load_requests(checkpoint, items)
            found = await times(
                peer,
                requests[items],
                first=asked["slice"] * _STRIDE,
                warm=asked["prefix"] == "warm",
                seconds=asked["seconds"],
            )
            print(json.dumps(found), file=replies)
        await peer.stop()
    except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on without this peer
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=replies)


def _questions() -> asyncio.Queue[str]:
    """The parent's lines, the last one empty. A thread reads them: a peer that starts or scores may block the loop."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        with os.fdopen(os.dup(0)) as parent, contextlib.suppress(RuntimeError):  # the loop may be over
            for line in parent:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")
        time.sleep(_END_SECONDS)
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=read, name="parent", daemon=True).start()
    return lines
