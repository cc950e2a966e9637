"""Which products no training step ever sees: an id alone decides, so every command holds out the same ones."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.catalogue import Product

HELD_OUT: Final = 0.08  # share of a catalogue's products


def split_products(products: Sequence[Product], held_out: float = HELD_OUT) -> tuple[list[int], list[int]]:
    """(training, held-out) product numbers, the same on every machine and in every run.

    Args:
        products: of a catalogue.
        held_out: share to hold out.
    """
    held = {n for n, product in enumerate(products) if _draw(product.id) < held_out}
    return [n for n in range(len(products)) if n not in held], sorted(held)


def _draw(text: str) -> float:
    """A fixed number in [0, 1) for an id."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
