"""Ends vLLM's processes when the process that started them is gone, however that happened.

vLLM's engine core outlives a parent that is killed (kill -9, out of memory) and keeps its memory, a GPU's above all:
the next start would find no room. A small process holds the reading end of a pipe; the kernel closes the writing end
with its owner. Run by path, so that it imports nothing of this package.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress


class Leash:
    """Holds processes to the life of this one."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._holder = subprocess.Popen(  # noqa: S603 - this very file
            [sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, start_new_session=True
        )
        if self._holder.stdin is not None:
            self._holder.stdin.write("".join(f"{pid}\n" for pid in pids).encode())
            self._holder.stdin.flush()

    def release(self) -> None:
        """The processes are ended in another way."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdin is not None:
            self._holder.stdin.close()


def hold() -> None:
    """Wait until standard input ends, then kill what it named."""
    pids = [int(line) for line in sys.stdin]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    hold()
