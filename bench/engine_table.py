"""What bench/engines.py found, as a table and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {
    "onnx-int8": "(a) our onnx, int8",
    "onnx-float32": "(a) our onnx, float32",
    "vllm": "(b) our vllm, in process",
    "vllm-offline": "(c) vLLM LLM.generate",
    "vllm-http": "(d) vLLM /generative_scoring",
    "vllm-server": "(d') our pool over that server",
    "transformers": "(e) transformers, batched",
    "cross-encoder": "(f) cross-encoder of this size",
}
COLOURS = {"cold": "#2f6f9f", "warm": "#9cc5e0"}


def markdown(report: dict[str, Any]) -> str:
    """Items/s with 95 % intervals, p50 / p99 in ms per request, memory, per peer and size."""
    sizes = sorted({cell["items"] for peer in report["peers"].values() for cell in peer["cells"]})
    head = ["peer", "setting", "ready s", "MB", *(f"{n} items, {p}" for n in sizes for p in ("cold", "warm"))]
    rows = [head, ["---"] * len(head)]
    for name, peer in report["peers"].items():
        cells = {(c["items"], c["prefix"]): c for c in peer["cells"]}
        row = [NAMES[name], peer["setting"], f"{peer['ready_s']:.0f}", f"{peer['memory_mb']:.0f}"]
        for key in ((n, p) for n in sizes for p in ("cold", "warm")):
            c = cells[key]
            speed = f"**{c['items_per_s']:.0f}**/s ({c['low']:.0f}-{c['high']:.0f})"
            row.append(f"{speed} {c['p50_ms']:.1f} / {c['p99_ms']:.1f}")
        rows.append(row)
    bound = report["limit"]["sizes"]
    row = ["(g) matrix products alone, int8", "", "", ""]
    for n in sizes:
        row += [f"**{bound[n]['items_per_s']['int8']:.0f}**/s", ""]
    rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if "ratios" in report:
        lines += ["", "At 32 cold items: " + ", ".join(f"{k} {v:.2f}" for k, v in report["ratios"].items()) + "."]
    if "service" in report:
        lines += ["", f"Service over the engine alone: {report['service']}"]
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Items/s of every peer, cold and warm, one panel a size; the dashed line is the int8 matrix limit."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sizes = sorted({cell["items"] for peer in report["peers"].values() for cell in peer["cells"]})
    figure, panels = plt.subplots(1, len(sizes), figsize=(4.2 * len(sizes), 4.2), sharey=True, squeeze=False)
    names = list(report["peers"])[::-1]
    for panel, items in zip(panels[0], sizes, strict=True):
        for offset, prefix in ((0.2, "cold"), (-0.2, "warm")):
            cells = [
                next(c for c in report["peers"][n]["cells"] if (c["items"], c["prefix"]) == (items, prefix))
                for n in names
            ]
            speeds = [c["items_per_s"] for c in cells]
            spread = [
                [c["items_per_s"] - c["low"] for c in cells],
                [c["high"] - c["items_per_s"] for c in cells],
            ]
            places = [n + offset for n in range(len(names))]
            panel.barh(places, speeds, 0.38, xerr=spread, color=COLOURS[prefix], label=f"{prefix} prefix")
        panel.axvline(report["limit"]["sizes"][items]["items_per_s"]["int8"], ls="--", c="#b03a2e", lw=1)
        panel.set_title(f"{items} item{'s' if items > 1 else ''} a request")
        panel.set_xlabel("items/s")
        panel.set_yticks(range(len(names)), [NAMES[n] for n in names])
    panels[0][-1].legend(loc="lower right", frameon=False)
    figure.suptitle(f"One checkpoint, one machine ({report['cores']} cores); dashed: int8 matrix products alone")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
