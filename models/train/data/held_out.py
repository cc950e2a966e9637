"""What no training step ever sees. An id or a name alone decides, so every command holds out the same ones."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


def split_names(
    everyday: Mapping[str, Sequence[str]], held_out: float
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """(training, held-out) everyday names of types; a name that several types have is on one side for all of them.

    Args:
        everyday: names by the type's plain name.
        held_out: share to hold out.
    """
    trained = {plain: tuple(n for n in names if _draw(n) >= held_out) for plain, names in everyday.items()}
    held = {plain: tuple(n for n in names if _draw(n) < held_out) for plain, names in everyday.items()}
    return trained, {plain: names for plain, names in held.items() if names}


def _draw(text: str) -> float:
    """A fixed number in [0, 1) for an id or a name."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
