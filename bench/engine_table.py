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
AT = 32  # items a request, where the bars are
COLOURS = {"cold": "#2f6f9f", "warm": "#9cc5e0"}


def markdown(report: dict[str, Any]) -> str:
    """Items/s per peer and size, cold with its 95 % interval / warm; ms per request of 32 cold items; memory."""
    sizes = _sizes(report)
    head = ["items/s, cold / warm prefix", "setting", *(f"{n} item{'s' if n > 1 else ''}" for n in sizes)]
    head += [f"p50 / p99 ms at {AT}", "start s", "MB"]
    rows = [head, ["---"] * len(head)]
    for name, peer in report["peers"].items():
        cells = {(c["items"], c["prefix"]): c for c in peer["cells"]}
        row = [NAMES[name], peer["setting"]]
        for n in sizes:
            cold, warm = cells[n, "cold"], cells[n, "warm"]
            interval = f"[{cold['low']:.0f}, {cold['high']:.0f}]"
            row.append(f"**{cold['items_per_s']:.0f}** {interval} / {warm['items_per_s']:.0f}")
        at = cells[AT, "cold"]
        row += [f"{at['p50_ms']:.0f} / {at['p99_ms']:.0f}", f"{peer['ready_s']:.0f}", f"{peer['memory_mb']:.0f}"]
        rows.append(row)
    bound = report["limit"]["sizes"]
    rows.append(["(g) int8 matrix products alone", "", *(f"{bound[str(n)]['items_per_s']['int8']:.0f}" for n in sizes)])
    rows[-1] += [""] * (len(head) - len(rows[-1]))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", f"| ratio at {AT} cold items | | range |", "| --- | --- | --- |"]
    for name, value in report["ratios"].items():
        low, high = report["ratio_ranges"][name] or (0.0, 0.0)
        found = "a side is missing | " if value is None else f"{value:.2f} | {low:.2f} to {high:.2f}"
        lines.append(f"| `{name}` | {found} |")
    lines += ["", _about(report)]
    lines += [f"\n**Failed:** {name}: {' '.join(why.split())}" for name, why in report["failed"].items()]
    if "service" in report:
        lines += ["", f"The service around the engine: {report['service']}"]
    return "\n".join(lines)


def _about(report: dict[str, Any]) -> str:
    processor = report["processor"]
    has = [name for name, there in processor["flags"].items() if there]
    lacks = [name for name, there in processor["flags"].items() if not there]
    where = f"{processor['cores']} cores of {processor['name'] or 'an unnamed processor'}"
    return f"{where} with {', '.join(has) or 'none'} of {', '.join(has + lacks)}; {report['rounds']} rounds."


def _sizes(report: dict[str, Any]) -> list[int]:
    return sorted({cell["items"] for peer in report["peers"].values() for cell in peer["cells"]})


def plot(report: dict[str, Any], path: Path) -> None:
    """Items/s of every peer, cold and warm, one panel a size; the dashed line is the int8 matrix limit."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sizes = _sizes(report)
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
        panel.axvline(report["limit"]["sizes"][str(items)]["items_per_s"]["int8"], ls="--", c="#b03a2e", lw=1)
        panel.set_title(f"{items} item{'s' if items > 1 else ''} a request")
        panel.set_xlabel("items/s")
        panel.set_yticks(range(len(names)), [NAMES[n] for n in names])
    panels[0][-1].legend(loc="lower right", frameon=False)
    figure.suptitle(
        f"One checkpoint, one machine ({report['processor']['cores']} cores); dashed: int8 matrix products alone"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
