"""The tables of evidence: differences are paired, and the row to ship is chosen on validation alone."""

from __future__ import annotations

from typing import Any

import pytest

from bench.evidence_table import best_row, figures_only, markdown, replaced

TABLES = {
    "valid": ("macro_f1", "auc", "ndcg@10", "accuracy"),
    "context": ("none", "right", "useless", "misleading"),
    "dev": ("ndcg@10", "auc", "macro_f1", "macro_f1_argmax", "accuracy", "calibration_error", "f1 4-Excellent"),
}


def row(shift: float, *, seed: int = 1, name: str = "bootstrap", dev: float = 0.0) -> dict[str, Any]:
    """Figures of a judge that is better than 0.5 by `shift` on every resample, noise and all."""
    noise = [-0.2, -0.1, 0.0, 0.1, 0.2]

    def figure(value: float) -> dict[str, Any]:
        return {"value": value, "samples": [value + n for n in noise]}

    tables = {table: {f: figure(0.5 + shift) for f in figures} for table, figures in TABLES.items()}
    tables["dev"]["macro_f1"] = figure(0.5 + dev)
    return {**tables, "rule_consistency": 0.9, "minutes": 12.0, "seed": seed, "row": name}


def test_difference_is_taken_resample_by_resample() -> None:
    """Noise that two rows share leaves their difference clear of zero, though their intervals overlap."""
    text = markdown({"rows": {"bootstrap": row(0.0), "sft": row(0.1, name="sft")}, "best": "sft"})
    assert "0.600 **+0.100 [+0.100, +0.100]**" in text


def test_best_row_is_chosen_on_validation_and_first_seeds() -> None:
    """Neither human judgements nor a lucky further seed decide which row is shipped."""
    rows = {
        "bootstrap": row(0.0, dev=0.4),
        "sft": row(0.1, name="sft"),
        "sft-2": row(0.3, seed=2, name="sft"),
    }
    assert best_row(rows) == "sft"


def test_seeds_are_told_by_mean_and_range() -> None:
    """A row with several seeds shows what they have in common and how far they lie apart."""
    rows = {"bootstrap": row(0.0), "sft": row(0.1, name="sft"), "sft-2": row(0.3, seed=2, name="sft")}
    assert "| sft | 2 | 0.700 (0.600 to 0.800)" in markdown({"rows": rows, "best": "sft"})


def test_page_keeps_everything_around_the_tables() -> None:
    """Only what stands between the markers is written anew, and a page without them is refused."""
    page = "before\n<!-- evidence -->\nold\n<!-- /evidence -->\nafter\n"
    assert replaced(page, "new") == "before\n<!-- evidence -->\n\nnew\n\n<!-- /evidence -->\nafter\n"
    with pytest.raises(SystemExit, match="no <!-- evidence -->"):
        replaced("a page", "new")


def test_written_figures_are_values_alone() -> None:
    """The JSON holds a figure as its value; resamples are for subtracting rows."""
    assert figures_only({"rows": {"sft": {"valid": {"auc": {"value": 0.9, "samples": [0.8]}}, "seed": 1}}}) == {
        "rows": {"sft": {"valid": {"auc": 0.9}, "seed": 1}}
    }
