"""Cards of a product taxonomy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from retrieval.encyclopedia import taxonomy_cards
from retrieval.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

CATEGORIES = [
    {"id": "el", "full_name": "Electronics", "attributes": []},
    {"id": "el-1", "full_name": "Electronics > Displays", "attributes": ["display-technology", "color"]},
    {"id": "el-1-1", "full_name": "Electronics > Displays > Monitors", "attributes": ["display_technology", "color"]},
    {"id": "el-2", "full_name": "Electronics > Cables", "attributes": ["color"]},
    *({"id": f"el-3-{n}", "full_name": f"Electronics > Cables > {n} m", "attributes": ["color"]} for n in range(4)),
    {"id": "ap", "full_name": "Apparel", "attributes": ["fabric"]},
]
ATTRIBUTES = [
    {
        "name": "Display technology",
        "handle": "display-technology",
        "description": "How it lights.",
        "values": ["LCD", "OLED", "Other"],
    },
    {"name": "Color", "handle": "color", "description": "Defines the color", "values": ["Red"]},
    {"name": "Fabric", "handle": "fabric", "description": "Cloth", "values": []},
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The taxonomy as two files."""
    paths = tmp_path / "categories.jsonl", tmp_path / "attributes.jsonl"
    for path, rows in zip(paths, (CATEGORIES, ATTRIBUTES), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return paths


def test_categories_and_the_attributes_they_use_become_cards(files: tuple[Path, Path]) -> None:
    """Only below the departments asked for; handles match in either spelling; colour tells nothing apart."""
    cards = {c.id: c.text for c in taxonomy_cards(*files, ["Electronics"])}
    assert cards == {
        "category:electronics": "Electronics: a top category. Kinds: Displays, Cables.",
        "category:electronics-displays": (
            "Displays: a category of Electronics. Kinds: Monitors. Told apart by: Display technology."
        ),
        "category:electronics-displays-monitors": (
            "Monitors: a category of Displays in Electronics. Told apart by: Display technology."
        ),
        "category:electronics-cables": "Cables: a category of Electronics. Kinds: 0 m, 1 m, 2 m, 3 m.",
        **{f"category:electronics-cables-{n}-m": f"{n} m: a category of Cables in Electronics." for n in range(4)},
        "attribute:display-technology": "Display technology: How it lights. Values: LCD, OLED.",
        "attribute:color": "Color: Defines the color. Values: Red.",
    }


def test_all_departments_without_a_choice(files: tuple[Path, Path]) -> None:
    """An attribute without values has no list of them."""
    cards = {c.id: c.text for c in taxonomy_cards(*files)}
    assert cards["attribute:fabric"] == "Fabric: Cloth."


def test_a_department_that_is_not_there_is_refused(files: tuple[Path, Path]) -> None:
    """An empty encyclopedia is a mistake, so it is named."""
    with pytest.raises(InputError, match="no category under Toys"):
        taxonomy_cards(*files, ["Toys"])


def test_a_row_without_a_column_is_refused(files: tuple[Path, Path]) -> None:
    """The error names file and column."""
    files[0].write_text('{"id": "x"}\n')
    with pytest.raises(InputError, match="no 'full_name'"):
        taxonomy_cards(*files)
