"""Training groups whose deciding fact is in no item: only a chunk can tell it, and only of the product it speaks of.

A query asks for an attribute value ("black toner"); two items of that type come without the attribute. The chunk tells
the value of one of them or of both, or another product's, or something else, or there is none. Two items of a kind
teach whose fact a chunk states. Tiers are what is true of the products, whatever the chunk says; where it says nothing
of an item, the best answer is how often such a wish is met, and the draw makes that one time in two.

This is the training side of the context test set (data/probes.py): the same idea on other products, in more words.
Unlike there, a chunk about another product tells that product's own value, drawn without regard to the verdict: a
model must not learn that a stranger's chunk means the opposite of what it says.
"""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from models.train import rules
from models.train.data.probes import LEAST_VALUES, told
from models.train.pairs import Fact, Group, rule_target
from models.train.queries import Query, askable, spoken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.catalogue import Product
    from models.train.queries import QueryMaker

FACT_ITEMS: Final = 2  # a subject and a sibling
_ONE, _BOTH, _DECOY, _USELESS = 0.35, 0.7, 0.82, 0.9  # of a draw: whom the chunk speaks of; above, there is none
_UNLIKE: Final = 0.75  # of the siblings have another value than the subject
_TRIES: Final = 20


class FactMaker:
    """Makes groups over one side of a catalogue; equal seeds give equal groups.

    Args:
        products: with categories and attributes where they are known.
        queries: knows how people call a type.
    """

    def __init__(self, products: Sequence[Product], queries: QueryMaker) -> None:
        self._products = products
        self._queries = queries

    @cached_property
    def _holders(self) -> dict[tuple[str, str], list[int]]:
        """(category, attribute) -> products that have it and tell it nowhere else; looked for at the first use."""
        holders: dict[tuple[str, str], list[int]] = defaultdict(list)
        for n, product in enumerate(self._products):
            for name, value in product.attributes.items():
                if product.category and askable(name, value) and not told(product, name, value):
                    holders[product.category, name].append(n)
        return {
            key: rows
            for key, rows in holders.items()
            if len({self._products[n].attributes[key[1]] for n in rows}) >= LEAST_VALUES
        }

    @cached_property
    def _pool(self) -> list[tuple[int, str]]:
        """Every product with every attribute that it may be asked for."""
        return [(n, name) for (_, name), rows in self._holders.items() for n in rows]

    def make(self, count: int, seed: int) -> list[Group]:
        """That many groups of FACT_ITEMS pairs, or none where the catalogue has no attributes to ask for."""
        rng = random.Random(seed)
        made: list[Group] = []
        tries = 0
        while len(made) < count and self._pool and tries < _TRIES * count:
            tries += 1
            group = self._group(*rng.choice(self._pool), rng)
            if group is not None:
                made.append(group)
        return made

    def _group(self, subject: int, name: str, rng: random.Random) -> Group | None:
        product = self._products[subject]
        others = [n for n in self._holders[product.category, name] if n != subject]
        true = product.attributes[name]
        unlike = [n for n in others if self._products[n].attributes[name].lower() != true.lower()]
        if not unlike:
            return None
        values = [self._products[n].attributes[name] for n in unlike]
        # A sibling of another value is judged wrong by whoever reads a chunk without minding whose fact it states.
        near = unlike if rng.random() < _UNLIKE else others
        kin = [n for n in near if self._products[n].brand == product.brand]
        sibling = rng.choice(kin if kin and rng.random() < 0.5 else near)  # noqa: PLR2004 - one in two
        asked = true if rng.random() < 0.5 else rng.choice(values)  # noqa: PLR2004 - one in two
        type_name, accepted = self._queries.asked(product.category, rng)
        value = spoken(name, asked)
        text = f"{value} {type_name}" if rng.random() < 0.85 else f"{type_name} {value}"  # noqa: PLR2004 - as people do
        query = Query(text, "attribute_type", accepted, values=((name, asked),))
        items = (subject, sibling)
        judged = tuple(rules.judge(query, self._products[n]) for n in items)
        if any(
            j is None or (j.tier == rules.EXCELLENT) != self._has(n, name, asked)
            for n, j in zip(items, judged, strict=True)
        ):
            return None  # an item's own words say more than its attribute
        targets = np.stack([rule_target(j.tier) for j in judged if j is not None])
        return Group(query, items, targets, judged, None, card_helps=False, fact=self._fact(items, name, others, rng))

    def _has(self, n: int, name: str, asked: str) -> bool:
        return self._products[n].attributes[name].lower() == asked.lower()

    def _fact(self, items: tuple[int, int], name: str, others: Sequence[int], rng: random.Random) -> Fact:
        draw = rng.random()
        if draw < _BOTH:
            subjects = items[:1] if draw < _ONE else tuple(rng.sample(items, len(items)))
            chunk = " ".join(statement(self._products[n], name, rng) for n in subjects)
            return Fact(name, chunk, subjects)
        decoys = [n for n in others if n != items[1]]
        if draw < _DECOY and decoys:
            return Fact(name, statement(self._products[rng.choice(decoys)], name, rng))
        if draw < _USELESS:
            stranger = rng.choice(self._products)
            return Fact(name, f"{stranger.title}: {stranger.description or stranger.category or stranger.brand}")
        return Fact(name)


def statement(product: Product, name: str, rng: random.Random) -> str:
    """A chunk that states one attribute of a product, alone or among others, in one of several wordings."""
    subject = product.title
    if product.name and rng.random() < 0.3:  # noqa: PLR2004 - now and then
        subject = f"{product.brand} {product.name}".strip()
    value = product.attributes[name]
    form = rng.randrange(6)
    if form == 0:
        return f"The {subject} has {name} {value}."
    if form == 1:
        return f"{name} of the {subject}: {value}."
    if form == 2:  # noqa: PLR2004 - the third wording
        return f"{subject}. {name}: {value}."
    others = [n for n in product.attributes if n != name]
    count = rng.choice((0, 0, 1, 3)) if form < 5 else 5  # noqa: PLR2004 - the last wording is long
    names = [name, *rng.sample(others, min(len(others), count))]
    rng.shuffle(names)
    return f"{subject}: {', '.join(f'{n} {product.attributes[n]}' for n in names)}."
