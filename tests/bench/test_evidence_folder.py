"""An evidence folder remembers what it was made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.evidence_folder import hold_to
from models.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {"generator": 2, "sizes": {"train": 2000}, "base": "mini@1"}


def test_goes_on_with_its_own(tmp_path: Path) -> None:
    """A folder of the same settings is gone on with, one of others refused by what differs."""
    folder = tmp_path / "runs" / "evidence"
    hold_to(folder, SETTINGS)
    hold_to(folder, dict(SETTINGS))
    with pytest.raises(DataError, match=r"other base .*name a new --output"):
        hold_to(folder, {**SETTINGS, "base": "mini@2"})


def test_refuses_what_says_nothing(tmp_path: Path) -> None:
    """Rows of unknown origin are not taken for ours."""
    (tmp_path / "rows").mkdir()
    with pytest.raises(DataError, match="does not say"):
        hold_to(tmp_path, SETTINGS)
