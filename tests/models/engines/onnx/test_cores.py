"""Counting the cores that a process may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.engines.onnx.cores import cores

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("line", "expected"), [("100000 100000", 1), ("50000 100000", 1), ("nonsense", None), ("max 1", None)]
)
def test_a_quota_bounds_the_cores(tmp_path: Path, line: str, expected: int | None) -> None:
    """A container's quota, rounded up, is a bound; no quota, or one that cannot be read, is none."""
    free = cores(tmp_path)
    (tmp_path / "cpu.max").write_text(line + "\n")
    assert cores(tmp_path) == (expected or free)


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", None)])
def test_the_older_layout_counts_too(tmp_path: Path, quota: str, expected: int | None) -> None:
    """Version 1 of control groups keeps quota and period in two files; -1 is no quota."""
    free = cores(tmp_path)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert cores(tmp_path) == (expected or free)
