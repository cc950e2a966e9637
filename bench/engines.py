"""Every engine on the same checkpoint and the same 1,000 real pairs, side by side in one run.

    .venv-vllm/bin/python bench/engines.py [--quick] [--json FILE] [--plot FILE] [--table FILE] [--checkpoint FOLDER]
    .venv-vllm/bin/python bench/engines.py --gpu MODEL [--json FILE]      see bench/engine_gpu.py

Requests hold 1, 8, 32 and 100 items of one query. Cold: nobody has computed the query's prefix; warm: its keys and
values are there, its items' are not. Each peer runs alone in its own process, with all cores, in each of the settings
listed in SETTINGS; its best setting at 32 cold items counts. Needs `.venv-vllm` with the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.manifest import SHIPPED

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine_limit import attention_flops, flops_per_token, rates
from bench.engine_requests import load_requests
from bench.engine_table import markdown, plot

HERE = Path(__file__).resolve().parent
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
    "vllm-server": [("compiled, all cores", [], ALL_CORES)],
    "transformers": [("bfloat16", [], {}), ("float32", ["--dtype", "float32"], {})],
    "cross-encoder": [("bfloat16", [], {}), ("float32", ["--dtype", "float32"], {})],
}
SAME_MODEL = set(SETTINGS) - {"cross-encoder", "vllm-http"}  # these must agree; the route returns one label only
AT = 32
CLOSE = 0.05  # label probabilities of one model on two engines


def measured(
    peer: str, checkpoint: Path, setting: tuple[str, list[str], dict[str, str]], sizes: list[int], seconds: float
) -> dict[str, Any]:
    """Run one peer in one setting in a process of its own."""
    label, arguments, environment = setting
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, str(HERE / "engine_peers.py"), peer, "--checkpoint", str(checkpoint)]
        command += ["--seconds", str(seconds), "--out", str(out), "--sizes", *map(str, sizes), *arguments]
        print(f"{time.strftime('%H:%M:%S')} {peer} {label}", file=sys.stderr, flush=True)
        done = subprocess.run(  # noqa: S603 - this project's own command
            command, env=os.environ | environment, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{peer} ({label}) failed:\n{done.stderr[-3000:]}")
        result: dict[str, Any] = json.loads(out.read_text())
    return result | {"setting": label}


def cell(result: dict[str, Any], items: int, prefix: str) -> dict[str, Any]:
    """One measurement of a peer."""
    found: dict[str, Any] = next(c for c in result["cells"] if c["items"] == items and c["prefix"] == prefix)
    return found


def best(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The setting with most items/s at 32 cold items."""
    return max(results, key=lambda r: float(cell(r, AT, "cold")["items_per_s"]))


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
        table[items] = {
            "prefix_tokens": prefix,
            "suffix_tokens": suffix,
            "flops_per_item": flops,
            "items_per_s": {name: rate / flops for name, rate in found.items()},
        }
    return {"ops_per_s": found, "sizes": table}


def overhead(checkpoint: Path, *, requests: int) -> dict[str, Any]:
    """What the HTTP service adds to the embedded engine at 32 items: bench/doors.py."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "doors.json"
        command = [sys.executable, str(HERE / "doors.py"), "--json", str(out), "--items", str(AT)]
        command += ["--requests", str(requests), "--checkpoint", str(checkpoint)]
        print(f"{time.strftime('%H:%M:%S')} service overhead", file=sys.stderr, flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - this project's own command
        found: dict[str, Any] = json.loads(out.read_text())
    return found


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


def ratios(peers: dict[str, dict[str, Any]], bound: dict[str, Any]) -> dict[str, float]:
    """The bars, all at 32 cold items."""
    speed = {name: float(cell(result, AT, "cold")["items_per_s"]) for name, result in peers.items()}
    return {
        "onnx_vs_vllm_offline": speed["onnx-int8"] / speed["vllm-offline"],
        "vllm_vs_vllm_offline": speed["vllm"] / speed["vllm-offline"],
        "vllm_vs_vllm_http": speed["vllm"] / speed["vllm-http"],
        "onnx_vs_cross_encoder": speed["onnx-int8"] / speed["cross-encoder"],
        "matmul_fraction": speed["onnx-int8"] / bound["sizes"][AT]["items_per_s"]["int8"],
    }


def main() -> None:
    """Measure all peers, print the table, write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--quick", action="store_true", help="one setting a peer, 8 and 32 items: within 8 minutes")
    parser.add_argument("--peers", nargs="+", default=list(SETTINGS), choices=list(SETTINGS), help="only these")
    parser.add_argument("--seconds", type=float, help="time for each cell; 6 by default, 3 under --quick")
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
    seconds = chosen.seconds or (3.0 if chosen.quick else 6.0)
    bound = limit(chosen.checkpoint, sizes)
    tried = {
        peer: [
            measured(peer, chosen.checkpoint, setting, sizes, seconds)
            for setting in SETTINGS[peer][: 1 if chosen.quick else None]
        ]
        for peer in chosen.peers
    }
    peers = {peer: best(results) for peer, results in tried.items()}
    report: dict[str, Any] = {
        "command": "bench/engines.py " + " ".join(sys.argv[1:]),
        "cores": len(os.sched_getaffinity(0)),
        "limit": bound,
        "peers": peers,
        "tried": {
            peer: {r["setting"]: cell(r, AT, "cold")["items_per_s"] for r in results} for peer, results in tried.items()
        },
    }
    if set(peers) == set(SETTINGS):
        report |= {"differences": check(peers), "ratios": ratios(peers, bound)}
        report["service"] = overhead(chosen.checkpoint, requests=60 if chosen.quick else 200)
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
