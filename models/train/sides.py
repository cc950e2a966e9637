"""The two sides of a catalogue: products to train on, and products that no training step ever sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.train.facts import FactMaker
from models.train.pairs import PairMaker
from models.train.queries import QueryMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from models.catalogue import Product
    from models.train.pairs import Card
    from models.train.teacher import SentenceEncoder


class Side:
    """Products of one side of the split, their queries and their pairs; cards are known to both.

    Args:
        products: the whole catalogue.
        cards: over the whole catalogue.
        rows: which products are this side's.
        encoder: the sentence encoder.
        progress: called with (what, done, total).
        folder: keeps the products' vectors for the next start.
        everyday: names of types that its queries use.
    """

    def __init__(
        self,
        products: Sequence[Product],
        cards: Sequence[Card],
        rows: Sequence[int],
        *,
        encoder: SentenceEncoder,
        progress: Callable[[str, int, int], None],
        folder: Path,
        everyday: dict[str, tuple[str, ...]],
    ) -> None:
        self.products = [products[n] for n in rows]
        place = {n: i for i, n in enumerate(rows)}
        self.cards = [
            type(c)(c.text, c.kind, frozenset(place[n] for n in c.products if n in place), c.keys) for c in cards
        ]
        devices = [
            (key, self.products[min(card.products)].category)
            for card in self.cards
            if card.kind == "fits" and card.products
            for key in card.keys
        ]
        self.queries = QueryMaker(self.products, devices, everyday)
        self.facts = FactMaker(self.products, self.queries)
        self.pairs = PairMaker(self.products, self.cards, encoder, progress, folder)
