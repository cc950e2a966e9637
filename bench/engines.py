"""Every engine on the same checkpoint and the same 1,000 real pairs, side by side in one run.

    .venv-vllm/bin/python bench/engines.py [--quick] [--json FILE] [--plot FILE] [--table FILE] [--checkpoint FOLDER]
    .venv-vllm/bin/python bench/engines.py --gpu MODEL [--json FILE]      see bench/engine_gpu.py

Requests hold 1, 8, 32 and 100 items of one query. Cold: nobody has computed the query's prefix; warm: its keys and
values are there, its items' are not. Each peer has its own process and all cores. All of them stay alive and take short
turns, one at a time, so that ratios do not depend on what else the machine does meanwhile. A peer with several settings
(bench/engine_settings.py) takes part in the best of them at 32 cold items, found in the same way. One that fails is
named, the others go on, and the exit status says so; results are written after each round. Needs `.venv-vllm` with the
extra `bench`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from models.manifest import SHIPPED

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import doors
from bench.engine_limit import attention_flops, flops_per_token, rates
from bench.engine_requests import load_requests
from bench.engine_settings import Setting, processor, settings
from bench.engine_table import AT, markdown, plot
from bench.engine_turns import ROUNDS, Child, PeerError, in_turns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.engine_requests import Cell

PEERS = tuple(settings())
SAME_MODEL = set(PEERS) - {"cross-encoder", "vllm-http"}  # these must agree; the route returns one label only
CLOSE = 0.05  # label probabilities of one model on two engines


class Field:
    """All peers of a run, whatever became of them."""

    def __init__(self, checkpoint: Path, *, quick: bool) -> None:
        self._checkpoint, self._quick = checkpoint, quick
        self._all: list[Child] = []
        self._absent: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._all:
            child.kill()

    @property
    def failed(self) -> dict[str, str]:
        """Who is out, and why."""
        return {child.name: child.failure for child in self._all if child.failure} | self._absent

    def enter(self, peers: list[str], seconds: float) -> tuple[dict[str, Child], dict[str, dict[str, float]]]:
        """Each peer in its best setting, ready; and what the settings did, where there were several.

        Under --quick they start all at once: nothing is measured meanwhile.
        """
        tries = {peer: found[: 1 if self._quick else None] for peer, found in settings().items() if peer in peers}
        waiting = tries.pop("vllm-server", [])
        candidates = {peer: self._start(peer, found) for peer, found in tries.items()}
        if self._quick:
            candidates = {peer: list(found) for peer, found in candidates.items()}
        champions, tried = {}, {}
        for peer, found in candidates.items():
            best, tried[peer] = champion(found, seconds)
            if best:
                champions[peer] = best
        if waiting and "vllm-http" not in champions:
            self._absent["vllm-server"] = "the server that it asks is not there"
        elif waiting:
            server = champions["vllm-http"]
            setting = Setting(server.setting, ("--url", server.ready["url"]))
            best, _ = champion(self._start("vllm-server", [setting]), seconds)
            champions |= {"vllm-server": best} if best else {}
        return {peer: champions[peer] for peer in PEERS if peer in champions}, tried

    def _start(self, peer: str, tries: list[Setting]) -> Iterable[Child]:
        for setting in tries:
            self._all.append(Child(peer, self._checkpoint, setting))
            yield self._all[-1]


def champion(candidates: Iterable[Child], seconds: float) -> tuple[Child | None, dict[str, float]]:
    """A peer in its fastest setting, None when it runs in none, and the speed of all: items/s at 32 cold items.

    Two settings at a time take turns; the slower one ends.
    """
    best: Child | None = None
    tried: dict[str, float] = {}
    for challenger in candidates:
        try:
            challenger.wait()
        except PeerError:
            continue
        if best:
            *_, cells = in_turns([best, challenger], [(AT, "cold")], seconds)
            speeds = {child: found[0].items_per_s for child, found in cells.items()}
            tried |= {child.setting: speed for child, speed in speeds.items()}
            for loser in sorted(speeds, key=speeds.__getitem__)[:-1]:
                loser.close()
            best = max(speeds, key=speeds.__getitem__, default=None)
        else:
            best = challenger
    return best, tried


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


def check(champions: dict[str, Child]) -> dict[str, float]:
    """Largest difference of label probabilities from the float32 engine on a sample; a fast wrong answer is none.

    A peer that computes something else is out.
    """
    if "onnx-float32" not in champions:
        return {}
    truth = np.array(champions["onnx-float32"].ready["sample"])
    found = {}
    for name in sorted(SAME_MODEL & champions.keys()):
        found[name] = float(np.abs(np.array(champions[name].ready["sample"]) - truth).max())
        if not found[name] <= CLOSE:
            champions[name].fail(f"does not compute the same thing: probabilities differ by {found[name]:.3f}")
    return found


def described(cells: dict[Child, list[Cell]]) -> dict[str, dict[str, Any]]:
    """What the peers say of themselves and what they did."""
    peers = {}
    for child, found in cells.items():
        try:
            about = child.ready | {"setting": child.setting, "memory_mb": child.memory_mb()}
        except PeerError:
            continue
        peers[child.peer] = about | {"cells": [asdict(c) for c in found]}
    return peers


def ratios(
    peers: dict[str, dict[str, Any]], bound: dict[str, Any]
) -> tuple[dict[str, float | None], dict[str, list[float] | None]]:
    """The bars, all at 32 cold items, and the range in which both sides' 95 % intervals leave each.

    None where a side is missing.
    """
    cells = {name: cell(result, AT, "cold") for name, result in peers.items()}
    cells["matmul"] = dict.fromkeys(("items_per_s", "low", "high"), bound["sizes"][str(AT)]["items_per_s"]["int8"])
    pairs = {
        "onnx_vs_vllm_offline": ("onnx-int8", "vllm-offline"),
        "vllm_vs_vllm_offline": ("vllm", "vllm-offline"),
        "vllm_vs_vllm_http": ("vllm", "vllm-http"),
        "onnx_vs_cross_encoder": ("onnx-int8", "cross-encoder"),
        "matmul_fraction": ("onnx-int8", "matmul"),
    }
    found: dict[str, float | None] = dict.fromkeys(pairs)
    ranges: dict[str, list[float] | None] = dict.fromkeys(pairs)
    for name, (a, b) in pairs.items():
        if a in cells and b in cells:
            found[name] = cells[a]["items_per_s"] / cells[b]["items_per_s"]
            ranges[name] = [cells[a]["low"] / cells[b]["high"], cells[a]["high"] / cells[b]["low"]]
    return found, ranges


def write(report: dict[str, Any], json_file: Path | None, table_file: Path | None) -> None:
    """Everything, and the table, to where they were asked for; a file is there as a whole or as it was before."""
    for file, text in ((json_file, json.dumps(report, indent=1)), (table_file, markdown(report))):
        if file:
            new = file.with_name(f"{file.name}.new")
            new.write_text(text + "\n")
            new.replace(file)


def main() -> None:
    """Measure all peers, print the table, write what was asked for after each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED)
    parser.add_argument("--quick", action="store_true", help="one setting a peer, 8 and 32 items: within 8 minutes")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS, help="only these")
    parser.add_argument("--seconds", type=float, help="time for each cell; 6 by default, 2 under --quick")
    parser.add_argument("--json", type=Path, help="write every figure")
    parser.add_argument("--table", type=Path, help="write the table as Markdown")
    parser.add_argument("--plot", type=Path, help="write the picture as PNG")
    parser.add_argument("--gpu", metavar="MODEL", help="measure the in-process engine alone: see bench/engine_gpu.py")
    chosen = parser.parse_args()
    if "vllm-server" in chosen.peers and "vllm-http" not in chosen.peers:
        parser.error("vllm-server asks the server of vllm-http: name both")
    if chosen.gpu:
        from bench.engine_gpu import main as on_gpu

        on_gpu(chosen.gpu, chosen.json)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that the peers end first
    report = measure(chosen)
    print(markdown(report))
    if chosen.plot and report["peers"]:
        plot(report, chosen.plot)
    if report["failed"]:
        raise SystemExit(f"without {', '.join(report['failed'])}")


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """The whole run."""
    began = time.perf_counter()
    sizes = [8, AT] if chosen.quick else [1, 8, AT, 100]
    keys = [(items, prefix) for items in sizes for prefix in ("cold", "warm")]
    seconds = chosen.seconds or (1.7 if chosen.quick else 6.0)
    report: dict[str, Any] = {
        "command": "bench/engines.py " + " ".join(sys.argv[1:]),
        "processor": processor(),
        "limit": limit(chosen.checkpoint, sizes),
    }
    with Field(chosen.checkpoint, quick=chosen.quick) as field:
        champions, report["tried"] = field.enter(chosen.peers, seconds)
        report["differences"] = check(champions)
        print(f"{time.strftime('%H:%M:%S')} all in turns", file=sys.stderr, flush=True)
        for turn, cells in enumerate(in_turns(list(champions.values()), keys, seconds), start=1):
            report["rounds"] = f"{turn} of {ROUNDS}"
            report["peers"] = described(cells)
            report["failed"] = field.failed
            report["ratios"], report["ratio_ranges"] = ratios(report["peers"], report["limit"])
            report["took_s"] = time.perf_counter() - began
            write(report, chosen.json, chosen.table)
        for child in reversed(champions.values()):
            child.close()
    if set(chosen.peers) == set(PEERS):
        report["service"] = overhead(chosen.checkpoint, requests=30 if chosen.quick else 200)
        report["took_s"] = time.perf_counter() - began
        write(report, chosen.json, chosen.table)
    return report


if __name__ == "__main__":
    main()
