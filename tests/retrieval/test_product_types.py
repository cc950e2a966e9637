"""Names of product types."""

from __future__ import annotations

import pytest

from retrieval.catalogue import Product
from retrieval.product_types import other_words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("uninterruptible power supply (UPS)", ["uninterruptible power supply", "UPS"]),
        ("headphones/headset", ["headphones", "headset"]),
        ("printer/scanner spare part", ["printer spare part", "scanner spare part"]),
        ("power adapter/inverter", ["power adapter", "power inverter"]),
        ("notebook", []),
    ],
)
def test_a_name_may_hold_several(name: str, expected: list[str]) -> None:
    """Letters in brackets and words around a slash; a part alone ("printer") is another type and never a name."""
    assert other_words([], [name], {})[name] == expected


def test_everyday_names_come_before_what_the_catalogue_shows() -> None:
    """Both count; phrases peculiar to a type must come from more than one brand."""
    products = [
        Product(
            id=f"{n}", title="t", name=f"Ethernet patch cord {n}", brand=("A", "B")[n % 2], category="network cable"
        )
        for n in range(4)
    ]
    single = [Product(id=f"s{n}", title="t", name="Zorgon light", brand="A", category="lamp") for n in range(4)]
    found = other_words([*products, *single], ["network cable", "lamp"], {"network cable": ["lan cable"]})
    assert found["network cable"][0] == "lan cable"
    assert "patch cord" in found["network cable"]
    assert found["lamp"] == []
