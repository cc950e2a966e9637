"""Engines side by side: a peer that fails is named and leaves the others alone, and no peer outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench import engine_settings
from bench.engine_settings import Setting, native_bfloat16, processor, settings
from bench.engine_table import markdown
from bench.engine_turns import Child, PeerError, in_turns
from bench.engines import check, ratios
from models.manifest import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
CELLS = [{"items": 32, "prefix": p, "items_per_s": s, "low": s, "high": s} for p, s in (("cold", 20.0), ("warm", 30.0))]
BOUND = {"sizes": {"32": {"items_per_s": {"int8": 40.0}}}}


@pytest.fixture
def pair() -> Iterator[list[Child]]:
    """Two embedded engines in processes of their own."""
    children = [Child("onnx-int8", SHIPPED, Setting(label)) for label in ("one", "other")]
    yield children
    for child in children:
        child.kill()


def test_run_goes_on_without_a_peer_that_dies(pair: list[Child]) -> None:
    """What is left after each round is what still answers; the dead one says that it is out."""
    for child in pair:
        child.wait()
    rounds = in_turns(pair, [(8, "cold")], 0.3)
    assert set(next(rounds)) == set(pair)
    os.killpg(pair[0]._process.pid, signal.SIGKILL)
    *_, last = rounds
    assert set(last) == {pair[1]}
    assert last[pair[1]][0].requests >= 6
    assert "ended" in pair[0].failure


def test_peer_that_does_not_start_says_why() -> None:
    """The reason is the peer's own last line."""
    child = Child("nobody", SHIPPED, Setting())
    with pytest.raises(PeerError, match="no peer nobody"):
        child.wait()
    assert "no peer nobody" in child.failure


def test_other_probabilities_put_a_peer_out(pair: list[Child]) -> None:
    """A fast wrong answer is no measurement."""
    for child in pair:
        child.ready = {"sample": [[0.7, 0.3]]}
    pair[1].ready = {"sample": [[0.5, 0.5]]}
    assert check({"onnx-float32": pair[0], "vllm": pair[1]})["vllm"] == pytest.approx(0.2)
    assert not pair[0].failure
    assert "differ by 0.200" in pair[1].failure


def test_no_peer_outlives_a_run_that_is_killed() -> None:
    """Its peers notice by themselves, whatever they are doing."""
    program = (
        "import time; from bench.engine_turns import Child; from bench.engine_settings import Setting;"
        "from models.manifest import SHIPPED; c = Child('onnx-int8', SHIPPED, Setting()); c.wait();"
        "print(c._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout is not None
        peer = int(run.stdout.readline())
        run.kill()
    with suppress(ProcessLookupError):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            os.killpg(peer, 0)
            time.sleep(0.1)
        pytest.fail("the peer is still there")


def test_ratio_without_one_side_is_null_and_its_peer_is_named() -> None:
    """A missing peer leaves a gap in the table, not another number."""
    peers = {"onnx-int8": {"setting": "", "ready_s": 1.0, "memory_mb": 1.0, "cells": CELLS}}
    for given in CELLS:
        given |= {"p50_ms": 1.0, "p99_ms": 2.0}
    found, ranges = ratios(peers, BOUND)
    assert found["matmul_fraction"] == 0.5
    assert found["onnx_vs_vllm_offline"] is None
    assert ranges["onnx_vs_vllm_offline"] is None
    report = {"peers": peers, "limit": BOUND, "ratios": found, "ratio_ranges": ranges, "rounds": "3 of 3"}
    text = markdown(report | {"processor": processor(), "failed": {"vllm-offline (eager)": "Error:\nit broke"}})
    assert "**Failed:** vllm-offline (eager): Error: it broke" in text
    assert "| `onnx_vs_vllm_offline` | a side is missing |" in text


@pytest.mark.parametrize(
    ("flags", "first"),
    [("avx2 fma", "float32"), ("avx2 avx512f avx512_bf16", "bfloat16"), ("amx_bf16", "bfloat16")],
)
def test_processor_decides_which_arithmetic_is_tried_first(
    flags: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulated bfloat16 is slower than float32; the full run tries both, and the report tells processors apart."""
    monkeypatch.setattr(engine_settings, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Some\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert native_bfloat16() is (first == "bfloat16")
    for peer in ("vllm", "vllm-offline", "vllm-http", "transformers", "cross-encoder"):
        tries = settings()[peer]
        assert first in tries[0].label
        assert {d for s in tries for d in ("float32", "bfloat16") if d in s.arguments} == {"float32", "bfloat16"}
    assert processor()["name"] == "Some"
    assert {flag for flag, there in processor()["flags"].items() if there} == set(flags.split()) - {"fma"}
