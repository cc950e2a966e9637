"""Queries generated from a catalogue, each with the cards that answer it: to train the embedder and measure retrieval.

What a query names and which cards answer it is the rule of retrieval/facets.py. A third of the queries is roughened as
people type: hyphens dropped, a letter wrong, a plural. Cards are divided into three splits by a hash over groups of
cards that share products, and a query belongs to a split only when all of its cards do, so that no card and no query of
one split is seen in another.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from retrieval.facets import Facets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retrieval.cards import Card
    from retrieval.catalogue import Product

Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "train", "train", "validation", "test")
ROUGH: Final = 1 / 3
LONG_WORD: Final = 6  # letters; a slip in a shorter word makes another word
_HYPHEN: Final = re.compile(r"(?<=\w)-(?=\w)")


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the ids of every card that answers it by the rule."""

    query: str
    gold: frozenset[str]
    kind: str
    split: Split


def generate(
    products: Sequence[Product],
    cards: Sequence[Card],
    everyday: Mapping[str, Sequence[str]] | None = None,
    *,
    seed: int = 0,
    per_card: int = 6,
) -> list[Pair]:
    """Pairs of a catalogue and its cards, each query once, in a fixed order for a seed.

    Args:
        products: the catalogue that the cards were made of.
        cards: cards of the catalogue, and others (an encyclopedia's).
        everyday: type -> everyday names, as the cards were made with.
        seed: other seeds name other facets and other slips; the split of a card is always the same.
        per_card: most queries for a card and kind.
    """
    rng = random.Random(seed)
    split = split_cards(cards)
    facets = list(Facets(products, cards, everyday or {}, rng))
    rng.shuffle(facets)
    pairs: dict[str, Pair] = {}
    ambiguous: set[str] = set()
    used: defaultdict[tuple[str, str], int] = defaultdict(int)
    for facet in facets:
        splits = {split[card] for card in facet.gold}
        first = min(facet.gold)
        if len(splits) > 1 or used[first, facet.kind] >= per_card:
            continue
        query = roughen(facet.query.lower(), rng) if rng.random() < ROUGH else facet.query.lower()
        if query in pairs:
            if pairs[query].gold != facet.gold:  # one spelling of two facets: no rule says which is meant
                ambiguous.add(query)
            continue
        used[first, facet.kind] += 1
        pairs[query] = Pair(query, facet.gold, facet.kind, splits.pop())
    kept = (p for q, p in pairs.items() if q not in ambiguous)
    return sorted(kept, key=lambda p: (p.split, p.kind, p.query))


def split_cards(cards: Sequence[Card]) -> dict[str, Split]:
    """Split of each card: 60 % train, 20 % validation, 20 % test. Supply cards that share a product stay together."""
    root: dict[str, str] = {}

    def find(x: str) -> str:
        while root.setdefault(x, x) != x:
            root[x] = root[root[x]]
            x = root[x]
        return x

    for card in cards:
        if card.kind in ("fits", "takes"):
            for product in card.products:
                root[find(f"product:{product}")] = find(card.id)
    return {c.id: SPLITS[int(hashlib.sha256(find(c.id).encode()).hexdigest(), 16) % len(SPLITS)] for c in cards}


def roughen(query: str, rng: random.Random) -> str:
    """One of the ways in which typed queries differ from a catalogue's spelling."""
    way = rng.choice(["joined", "apart", "plural", "swapped"])
    if way in ("joined", "apart"):
        return _HYPHEN.sub("" if way == "joined" else " ", query)
    words = query.split()
    long = [n for n, word in enumerate(words) if len(word) >= LONG_WORD and word.isalpha()]
    if not long:
        return query
    n = rng.choice(long)
    word = words[n]
    if way == "plural":
        words[n] = word if word.endswith("s") else f"{word}s"
    else:
        at = rng.randrange(1, len(word) - 1)
        words[n] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return " ".join(words)
