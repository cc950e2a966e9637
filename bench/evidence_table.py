"""Tables and picture of the evidence: every row beside the bootstrap, with paired differences over query clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from models.evaluation.bootstrap import Draws
from models.evaluation.probes import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BEGIN, END = "<!-- evidence -->", "<!-- /evidence -->"
FIRST = "bootstrap"
SELECTION = "macro_f1"  # on the validation rows: tiers are what the service answers
VALID = {"macro_f1": "macro-F1", "auc": "AUC", "ndcg@10": "nDCG@10", "accuracy": "accuracy"}
DEV = {"ndcg@10": "nDCG@10", "auc": "AUC", "macro_f1": "macro-F1", "macro_f1_argmax": "macro-F1, argmax"}
REST = {"accuracy": "accuracy", "calibration_error": "calibration error"}

Found = dict[str, Any]


def draws(found: Mapping[str, Any]) -> Draws:
    """A kept figure as draws again."""
    return Draws(found["value"], np.array(found["samples"], dtype=np.float64))


def best_row(results: Mapping[str, Found]) -> str:
    """The row that is best on the validation rows; further seeds do not compete: a row is chosen, not a lucky seed."""
    first = [name for name, found in results.items() if found["seed"] == 1]
    return max(first, key=lambda name: results[name]["valid"][SELECTION]["value"])


def markdown(report: dict[str, Any]) -> str:
    """The tables of docs/training.md."""
    results: dict[str, Found] = report["rows"]
    first = {name: found for name, found in results.items() if found["seed"] == 1}
    parts = [
        "Validation, rule-labelled, products and queries that no row has seen; minutes are of training:",
        _table(first, "valid", VALID, extra=("rule consistency", "minutes")),
        f"Best by macro-F1: `{report['best']}`.",
        "Context test set, accuracy of the served tier by kind of chunk, differences against no chunk:",
        _contexts(first),
    ]
    if all("dev" in found for found in first.values()):
        parts += [
            "Human judgements, read once a row:",
            _table(first, "dev", DEV),
            _table(first, "dev", {**REST, **{n: n for n in _tier_figures(first)}}),
        ]
    if seeds := _seeds(results):
        parts += ["Several seeds, mean and range:", seeds]
    parts.append(
        "Behind each figure: row minus bootstrap on the same pairs, with its 95 % interval over query clusters; bold "
        "where that excludes zero."
    )
    return "\n\n".join(parts)


def _tier_figures(first: Mapping[str, Found]) -> list[str]:
    return [name for name in next(iter(first.values()))["dev"] if name.startswith("f1 ")]


def _table(rows: Mapping[str, Found], table: str, columns: Mapping[str, str], *, extra: tuple[str, ...] = ()) -> str:
    lines = [["row", *columns.values(), *extra]]
    for name, found in rows.items():
        cells = [_cell(found[table][c], None if name == FIRST else rows[FIRST][table][c]) for c in columns]
        last = {"rule consistency": f"{found['rule_consistency']:.2f}", "minutes": f"{found['minutes']:.0f}"}
        lines.append([name, *cells, *(last[e] for e in extra)])
    return _lines(lines)


def _contexts(rows: Mapping[str, Found]) -> str:
    lines = [["row", *(f"{v} chunk" if v != "none" else "no chunk" for v in VARIANTS)]]
    for name, found in rows.items():
        mine = found["context"]
        lines.append([name, *(_cell(mine[v], None if v == "none" else mine["none"]) for v in VARIANTS)])
    return _lines(lines)


def _seeds(results: Mapping[str, Found]) -> str:
    names = [name for name, found in results.items() if found["seed"] == 1]
    lines = [["row", "seeds", "validation macro-F1", "right chunk", "misleading chunk", "dev nDCG@10", "dev macro-F1"]]
    for name in names:
        runs = [found for found in results.values() if found["row"] == name]
        if len(runs) > 1:
            cells = [
                [r["valid"][SELECTION]["value"] for r in runs],
                [r["context"]["right"]["value"] - r["context"]["none"]["value"] for r in runs],
                [r["context"]["misleading"]["value"] - r["context"]["none"]["value"] for r in runs],
                *([r["dev"][f]["value"] for r in runs if "dev" in r] for f in ("ndcg@10", "macro_f1")),
            ]
            lines.append([name, str(len(runs)), *(_spread(values) for values in cells)])
    return _lines(lines) if len(lines) > 1 else ""


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _cell(own: Mapping[str, Any], other: Mapping[str, Any] | None) -> str:
    if other is None:
        return f"{own['value']:.3f}"
    change = (draws(own) - draws(other)).estimate()
    if change.value is None or change.low is None or change.high is None:
        return f"{own['value']:.3f}"
    told = f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
    return f"{own['value']:.3f} " + (f"**{told}**" if change.excludes_zero else told)


def _lines(rows: list[list[str]]) -> str:
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *body])


def figures_only(report: Any) -> Any:
    """The report with each figure as its value, without the resamples."""
    if isinstance(report, dict):
        return report["value"] if "samples" in report else {name: figures_only(v) for name, v in report.items()}
    return report


def replaced(page: str, text: str) -> str:
    """The page with its evidence replaced.

    Raises:
        SystemExit: the page has no place for it.
    """
    if BEGIN not in page or END not in page:
        raise SystemExit(f"the page has no {BEGIN} and {END} to put the tables between")
    return f"{page[: page.index(BEGIN) + len(BEGIN)]}\n\n{text}\n\n{page[page.index(END) :]}"


def plot(report: dict[str, Any], path: Path) -> None:
    """Differences to the bootstrap with their intervals: validation and, if there are any, human judgements."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    first = {name: found for name, found in report["rows"].items() if found["seed"] == 1}
    names = [name for name in first if name != FIRST][::-1]
    panels = [("valid", SELECTION, "macro-F1, rule-labelled validation")]
    if all("dev" in found for found in first.values()):
        panels += [("dev", "ndcg@10", "nDCG@10, human judgements"), ("dev", "macro_f1", "macro-F1, human judgements")]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.6), sharey=True, squeeze=False)
    for axis, (table, name, title) in zip(axes[0], panels, strict=True):
        changes = [(draws(first[n][table][name]) - draws(first[FIRST][table][name])).estimate() for n in names]
        values = [c.value or 0.0 for c in changes]
        spread = [
            [v - (c.low or 0.0) for v, c in zip(values, changes, strict=True)],
            [(c.high or 0.0) - v for v, c in zip(values, changes, strict=True)],
        ]
        axis.errorbar(values, range(len(names)), xerr=spread, fmt="o", color="#2f6f9f", capsize=3)
        axis.axvline(0, color="#888888", linewidth=0.8)
        axis.set_yticks(range(len(names)), names)
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(f"{title}\nrow minus bootstrap", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
