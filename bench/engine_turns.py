"""Peers in processes of their own that stay alive and measure in turns, so that a busy minute is busy for all of them.

One line of JSON each way: the parent asks for a slice of one cell, the child answers with the times it took. Between
its turns a peer only waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import numpy as np

from bench.engine_requests import load_requests, memory_mb, times

if TYPE_CHECKING:
    from bench.engine_requests import Peer

_PROGRAM: Final = Path(__file__).resolve().parent / "engine_peers.py"
_STRIDE: Final = 1000  # between the first requests of two slices


class Child:
    """The parent's side of one peer in one setting; ready when constructed."""

    def __init__(
        self, peer: str, checkpoint: Path, setting: str, arguments: list[str], environment: dict[str, str]
    ) -> None:
        self.peer, self.setting = peer, setting
        self._slices = 0
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        command = [sys.executable, str(_PROGRAM), peer, "--checkpoint", str(checkpoint), *arguments]
        print(f"{time.strftime('%H:%M:%S')} {peer} {setting}", file=sys.stderr, flush=True)
        self._process = subprocess.Popen(  # noqa: S603 - this project's own command
            command,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.ready: dict[str, Any] = self._read()

    def times(self, items: int, prefix: str, seconds: float) -> list[float]:
        """One slice of one cell: seconds of each request."""
        self._slices += 1
        found: list[float] = self._ask({"items": items, "prefix": prefix, "seconds": seconds, "slice": self._slices})
        return found

    def memory_mb(self) -> float:
        """Of the peer and all that it started."""
        return float(self._ask({}))

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._errors.close()

    def _ask(self, what: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"{self.peer} ({self.setting}) failed:\n{self._errors.read()[-3000:]}")
        return json.loads(line)


def reply_channel() -> TextIO:
    """Standard output for the parent alone: whatever else writes there goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


async def serve(peer: Peer, checkpoint: Path, replies: TextIO) -> None:
    """The child's side: start, answer until the parent hangs up, stop."""
    began = time.perf_counter()
    await peer.start()
    ready = time.perf_counter() - began
    answer = await peer.score(load_requests(checkpoint, 8)[0], "sample")
    about = {"ready_s": ready, "sample": np.asarray(answer).tolist(), "url": getattr(peer, "url", None)}
    print(json.dumps(about), file=replies)
    requests = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
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
