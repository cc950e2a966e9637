"""Every engine on the same checkpoint and the same 1,000 real pairs, side by side in one run.

    .venv-vllm/bin/python bench/engines.py [--quick] [--json FILE] [--plot FILE] [--table FILE] [--checkpoint FOLDER]
    .venv-vllm/bin/python bench/engines.py --gpu MODEL [--json FILE]      see bench/engine_gpu.py

Requests hold 1, 8, 32 and 100 items of one query. Cold: nobody has computed the query's prefix; warm: its keys and
values are there, its items' are not. Each peer has its own process and all cores. All of them stay alive and take short
turns, one at a time, so that ratios do not depend on what else the machine does meanwhile. A peer with several SETTINGS
takes part in the best of them at 32 cold items, found in the same way. Needs `.venv-vllm` with the extra `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.manifest import SHIPPED

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import doors
from bench.engine_limit import attention_flops, flops_per_token, rates
from bench.engine_requests import Cell, load_requests
from bench.engine_table import AT, markdown, plot
from bench.engine_turns import Child

ALL_CORES = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))))}
IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
# Peer -> settings to try: (what the setting is called, arguments, environment). The first alone under --quick.
SETTINGS: dict[str, list[tuple[str, list[str], dict[str, str]]]] = {
    "onnx-int8": [("", [], {})],
    "onnx-float32": [("", [], {})],
    "vllm": [("compiled", [], {}), ("eager", ["--eager"], {})],
    "vllm-offline": [
        ("compiled, all cores", [], ALL_CORES),
        ("compiled, vLLM's own binding", [], {}),
        ("compiled, all cores, in process", [], ALL_CORES | IN_PROCESS),
        ("eager, all cores", ["--eager"], ALL_CORES),
    ],
    "vllm-http": [("compiled, all cores", [], ALL_CORES), ("compiled, vLLM's own binding", [], {})],
    "vllm-server": [("", [], {})],  # asks the server that vllm-http started
    "transformers": [("bfloat16", [], {}), ("float32", ["--dtype", "float32"], {})],
    "cross-encoder": [("bfloat16", [], {}), ("float32", ["--dtype", "float32"], {})],
}
SAME_MODEL = set(SETTINGS) - {"cross-encoder", "vllm-http"}  # these must agree; the route returns one label only
ROUNDS = 3
CLOSE = 0.05  # label probabilities of one model on two engines


def champion(
    peer: str, checkpoint: Path, settings: list[tuple[str, list[str], dict[str, str]]], seconds: float
) -> tuple[Child, dict[str, float]]:
    """The peer in its fastest setting, and the speed of all of them: items/s at 32 cold items.

    Two settings at a time take turns; the slower one ends.
    """
    (label, arguments, environment), *others = settings
    best = Child(peer, checkpoint, label, arguments, environment)
    tried: dict[str, float] = {}
    for label, arguments, environment in others:
        challenger = Child(peer, checkpoint, label, arguments, environment)
        cells = in_turns([best, challenger], [(AT, "cold")], seconds)
        speeds = [cells[child][0].items_per_s for child in (best, challenger)]
        tried |= {best.setting: speeds[0], challenger.setting: speeds[1]}
        loser = challenger if speeds[0] >= speeds[1] else best
        best = best if loser is challenger else challenger
        loser.close()
    return best, tried


def in_turns(children: list[Child], cells: list[tuple[int, str]], seconds: float) -> dict[Child, list[Cell]]:
    """Measure every cell of every peer for so long, in ROUNDS slices, one peer after the other."""
    taken: dict[tuple[Child, tuple[int, str]], list[float]] = defaultdict(list)
    for turn in range(ROUNDS):
        for key in cells:
            for child in children[turn:] + children[:turn]:
                taken[child, key] += child.times(*key, seconds / ROUNDS)
    return {child: [Cell.of(*key, taken[child, key]) for key in cells] for child in children}


def cell(result: dict[str, Any], items: int, prefix: str) -> dict[str, Any]:
    """One measurement of a peer."""
    found: dict[str, Any] = next(c for c in result["cells"] if c["items"] == items and c["prefix"] == prefix)
    return found


def limit(checkpoint: Path, sizes: list[int]) -> dict[str, Any]:
    """What matrix products alone would take, per arithmetic and size: items/s."""
    found = rates()
    table = {}
    for items in sizes:
        requests = load_requests(checkpoint, items)
        prefix = float(np.mean([len(r.prefix) for r in requests]))
        suffix = float(np.mean([len(s) for r in requests for s in r.suffixes]))
        tokens = suffix + prefix / items
        flops = tokens * flops_per_token(checkpoint) + attention_flops(suffix, prefix + suffix / 2, checkpoint)
        table[str(items)] = {
            "prefix_tokens": prefix,
            "suffix_tokens": suffix,
            "flops_per_item": flops,
            "items_per_s": {name: rate / flops for name, rate in found.items()},
        }
    return {"ops_per_s": found, "sizes": table}


def overhead(checkpoint: Path, *, requests: int) -> dict[str, Any]:
    """What the HTTP service adds to the embedded engine at 32 items, by stage: bench/doors.py."""
    print(f"{time.strftime('%H:%M:%S')} service overhead", file=sys.stderr, flush=True)
    return asyncio.run(
        doors.measure(argparse.Namespace(checkpoint=checkpoint, items=AT, requests=requests, threads=None))
    )


def check(peers: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Largest difference of label probabilities from the float32 engine on a sample; a fast wrong answer is none.

    Raises:
        SystemExit: a peer computes something else.
    """
    truth = np.array(peers["onnx-float32"]["sample"])
    found = {name: float(np.abs(np.array(peers[name]["sample"]) - truth).max()) for name in SAME_MODEL & peers.keys()}
    if wrong := {name: value for name, value in found.items() if value > CLOSE}:
        raise SystemExit(f"these peers do not compute the same thing: {wrong}")
    return found


def ratios(peers: dict[str, dict[str, Any]], bound: dict[str, Any]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """The bars, all at 32 cold items, and the range in which both sides' 95 % intervals leave each."""
    cells = {name: cell(result, AT, "cold") for name, result in peers.items()}
    cells["matmul"] = dict.fromkeys(("items_per_s", "low", "high"), bound["sizes"][str(AT)]["items_per_s"]["int8"])
    pairs = {
        "onnx_vs_vllm_offline": ("onnx-int8", "vllm-offline"),
        "vllm_vs_vllm_offline": ("vllm", "vllm-offline"),
        "vllm_vs_vllm_http": ("vllm", "vllm-http"),
        "onnx_vs_cross_encoder": ("onnx-int8", "cross-encoder"),
        "matmul_fraction": ("onnx-int8", "matmul"),
    }
    found = {name: cells[a]["items_per_s"] / cells[b]["items_per_s"] for name, (a, b) in pairs.items()}
    ranges = {
        name: [cells[a]["low"] / cells[b]["high"], cells[a]["high"] / cells[b]["low"]] for name, (a, b) in pairs.items()
    }
    return found, ranges


def main() -> None:
    """Measure all peers, print the table, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--quick", action="store_true", help="one setting a peer, 8 and 32 items: within 8 minutes")
    parser.add_argument("--peers", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), help="only these")
    parser.add_argument("--seconds", type=float, help="time for each cell; 6 by default, 2 under --quick")
    parser.add_argument("--json", type=Path, help="write every figure")
    parser.add_argument("--table", type=Path, help="write the table as Markdown")
    parser.add_argument("--plot", type=Path, help="write the picture as PNG")
    parser.add_argument("--gpu", metavar="MODEL", help="measure the in-process engine alone: see bench/engine_gpu.py")
    chosen = parser.parse_args()
    if chosen.gpu:
        from bench.engine_gpu import main as on_gpu

        on_gpu(chosen.gpu, chosen.json)
        return
    began = time.perf_counter()
    sizes = [8, AT] if chosen.quick else [1, 8, AT, 100]
    seconds = chosen.seconds or (2.0 if chosen.quick else 6.0)
    bound = limit(chosen.checkpoint, sizes)
    children: dict[str, Child] = {}
    tried = {}
    for peer in chosen.peers:
        settings = SETTINGS[peer][: 1 if chosen.quick else None]
        if peer == "vllm-server":
            settings = [(children["vllm-http"].setting, ["--url", children["vllm-http"].ready["url"]], {})]
        children[peer], tried[peer] = champion(peer, chosen.checkpoint, settings, seconds)
    keys = [(items, prefix) for items in sizes for prefix in ("cold", "warm")]
    print(f"{time.strftime('%H:%M:%S')} all in turns", file=sys.stderr, flush=True)
    cells = in_turns(list(children.values()), keys, seconds)
    peers = {
        peer: child.ready
        | {"setting": child.setting, "memory_mb": child.memory_mb(), "cells": [asdict(c) for c in cells[child]]}
        for peer, child in children.items()
    }
    for child in reversed(children.values()):
        child.close()
    report: dict[str, Any] = {
        "command": "bench/engines.py " + " ".join(sys.argv[1:]),
        "cores": len(os.sched_getaffinity(0)),
        "limit": bound,
        "peers": peers,
        "tried": tried,
    }
    if set(peers) == set(SETTINGS):
        report["differences"] = check(peers)
        report["ratios"], report["ratio_ranges"] = ratios(peers, bound)
        report["service"] = overhead(chosen.checkpoint, requests=40 if chosen.quick else 200)
    report["took_s"] = time.perf_counter() - began
    text = markdown(report)
    print(text)
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")
    if chosen.table:
        chosen.table.write_text(text + "\n")
    if chosen.plot:
        plot(report, chosen.plot)


if __name__ == "__main__":
    main()
