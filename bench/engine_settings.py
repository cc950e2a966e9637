"""What the peers of bench/engines.py may be set to on this processor, the best guess first.

A processor without bfloat16 instructions computes it by conversion, which is slower than float32: there float32 is the
guess and bfloat16 what a full run tries against it, elsewhere the other way round.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

CPUINFO: Final = Path("/proc/cpuinfo")
FLAGS: Final = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_BFLOAT16: Final = {"avx512_bf16", "amx_bf16", "bf16"}  # the last on ARM
_ALL_CORES: Final = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))))}
_IN_PROCESS: Final = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


class Setting(NamedTuple):
    """One way to run a peer.

    Attributes:
        label: what it is called.
        arguments: for bench/engine_peers.py.
        environment: on top of this process's.
    """

    label: str = ""
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}  # noqa: RUF012 - never written to


def processor() -> dict[str, Any]:
    """Name, cores that may be used, and which of FLAGS it has: figures of two processors do not compare."""
    flags = _values("flags").split()
    return {
        "name": _values("model name"),
        "cores": len(os.sched_getaffinity(0)),
        "flags": {flag: flag in flags for flag in FLAGS},
    }


def native_bfloat16() -> bool:
    """Whether there are instructions for it."""
    return not _BFLOAT16.isdisjoint(f"{_values('flags')} {_values('Features')}".split())


def _values(key: str) -> str:
    """What the first processor has under a key of /proc/cpuinfo."""
    for line in CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def settings() -> dict[str, list[Setting]]:
    """Peer -> what to try."""
    guess, other = ("bfloat16", "float32") if native_bfloat16() else ("float32", "bfloat16")

    def eager(label: str, dtype: str = guess, environment: dict[str, str] = _ALL_CORES) -> Setting:
        return Setting(f"{dtype}, eager{label}", ("--dtype", dtype, "--eager"), environment)

    def compiled(label: str, dtype: str = guess, environment: dict[str, str] = _ALL_CORES) -> Setting:
        return Setting(f"{dtype}, compiled{label}", ("--dtype", dtype), environment)

    torch = [Setting(dtype, ("--dtype", dtype)) for dtype in (guess, other)]
    return {
        "onnx-int8": [Setting()],
        "onnx-float32": [Setting()],
        "vllm": [eager(""), compiled(""), eager("", other)],
        "vllm-offline": [
            eager(", all cores"),
            compiled(", all cores"),
            compiled(", vLLM's own binding", environment={}),
            compiled(", all cores, in process", environment=_ALL_CORES | _IN_PROCESS),
            eager(", all cores", other),
        ],
        "vllm-http": [
            eager(", all cores"),
            compiled(", all cores"),
            compiled(", vLLM's own binding", environment={}),
            eager(", all cores", other),
        ],
        "vllm-server": [Setting()],  # asks the server that vllm-http started
        "transformers": torch,
        "cross-encoder": torch,
    }
