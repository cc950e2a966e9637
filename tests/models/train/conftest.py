"""A small made-up catalogue, in the grammar of distributors' titles."""

from __future__ import annotations

import pytest

from models.catalogue import Product
from models.train.pairs import Card

BRANDS = ("Acme", "Borel", "Canto", "Delve")
TYPES = ("toner cartridge", "ink cartridge", "notebook case", "notebook", "keyboard", "mouse", "network switch")
COLOURS = ("Black", "Blue", "Red")


@pytest.fixture(scope="session")
def stock() -> list[Product]:
    """Every brand, type and colour, three models each: 252 products."""
    made = []
    for b, brand in enumerate(BRANDS):
        for t, kind in enumerate(TYPES):
            for c, colour in enumerate(COLOURS):
                for model in range(3):
                    name = f"{brand[:2].upper()}{t}{c}{model}"
                    made.append(
                        Product(
                            id=f"{b}-{t}-{c}-{model}",
                            title=f"{brand} {name} {kind} {colour}",
                            brand=brand,
                            category=kind,
                            attributes={"product colour": colour, "wireless": "yes" if model else "no"},
                            description=f"{kind} by {brand}",
                            name=name,
                        )
                    )
    return made


@pytest.fixture(scope="session")
def cards() -> list[Card]:
    """One card of a brand and one of a device that two products fit."""
    return [
        Card("Acme is a brand of cartridges.", "brand", frozenset(range(63)), ("Acme",)),
        Card("Acme AC000 fits Acme Laser 5.", "fits", frozenset({0, 1}), ("Acme Laser 5",)),
    ]
