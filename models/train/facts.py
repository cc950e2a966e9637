"""Training groups whose deciding fact is in no item: only a chunk can tell it, and only of the product it speaks of.

A query asks for an attribute value ("black toner"); two items of that type come without the attribute. The chunk tells
the value of one of them or of both, or another product's, or something else, or there is none. Tiers are what is true
of the products, whatever the chunk says.

A third item needs no chunk: one of the type whose title tells the value, or one of another type, often with the asked
value. Without it every word that an item does not show would look like an attribute that only a chunk can tell.

Whose fact it is must be learned, and nothing else may give it away. So each of the two items and each stranger has the
asked value one time in two, independently: a chunk about somebody else says nothing of an item, neither what it states
nor the opposite, and the best answer is the one without a chunk. Where the chunk speaks of both and their values
differ, only the names tell which is which. Now and then nobody knows the second item's value: 3-Related.

This is the training side of the context test set (data/probes.py): the same idea on other products, in more words.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from models.train import rules
from models.train.data.probes import LEAST_VALUES, told
from models.train.pairs import Fact, Group, rule_target
from models.train.queries import Query, askable, spoken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from models.catalogue import Product
    from models.train.queries import QueryMaker
    from models.train.rules import Judgement

WITHHELD: Final = 2  # a subject and a sibling come first in a group, without the attribute
FACT_ITEMS: Final = WITHHELD + 1
_ONE, _BOTH, _DECOY, _USELESS = 0.3, 0.55, 0.7, 0.88  # of a draw: whom the chunk speaks of; above, there is none
_SILENT: Final = 0.12  # of the siblings are products whose value the catalogue does not tell
_KIN: Final = 0.3  # of the siblings are of the subject's brand, where there are any
_TELLER, _BEARER = 0.4, 0.75  # of a draw: what the third item is; above, it is anything of another type
_EITHER: Final = (rule_target(rules.EXCELLENT) + rule_target(rules.MISMATCH)) / 2
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

    @cached_property
    def _tellers(self) -> dict[tuple[str, str], list[int]]:
        """(category, attribute) -> products whose title tells the value."""
        tellers: dict[tuple[str, str], list[int]] = defaultdict(list)
        for n, product in enumerate(self._products):
            for name, value in product.attributes.items():
                if (product.category, name) in self._holders and told(replace(product, description=""), name, value):
                    tellers[product.category, name].append(n)
        return dict(tellers)

    @cached_property
    def _bearers(self) -> dict[tuple[str, str], list[int]]:
        """(attribute, value) -> products that have it, of any type."""
        bearers: dict[tuple[str, str], list[int]] = defaultdict(list)
        for n, product in enumerate(self._products):
            for name, value in product.attributes.items():
                bearers[name, value.lower()].append(n)
        return dict(bearers)

    @cached_property
    def _typed(self) -> list[int]:
        return [n for n, product in enumerate(self._products) if product.category]

    @cached_property
    def _silent(self) -> dict[tuple[str, str], list[int]]:
        """(category, attribute) -> products of the category that do not have the attribute."""
        by_category: dict[str, list[int]] = defaultdict(list)
        for n, product in enumerate(self._products):
            by_category[product.category].append(n)
        return {
            (category, name): [n for n in by_category[category] if name not in self._products[n].attributes]
            for category, name in self._holders
        }

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
        key = (product.category, name)
        others = [n for n in self._holders[key] if n != subject]
        true = product.attributes[name]
        values = [v for n in others if (v := self._products[n].attributes[name]).lower() != true.lower()]
        if not values:
            return None
        asked = true if _coin(rng) else rng.choice(values)
        having, lacking = ([n for n in others if self._has(n, name, asked) is has] for has in (True, False))
        if not having or not lacking:
            return None  # what a sibling has would follow from what the subject has
        near = having if _coin(rng) else lacking
        if self._silent[key] and rng.random() < _SILENT:
            near = self._silent[key]
        kin = [n for n in near if self._products[n].brand == product.brand]
        pair = (subject, rng.choice(kin if kin and rng.random() < _KIN else near))
        query = self._query(product.category, name, asked, rng)
        third = self._third(query, pair, rng)
        if third is None:
            return None
        items = (*pair, third)
        judged = tuple(j for n in items if (j := rules.judge(query, self._products[n])) is not None)
        if len(judged) < FACT_ITEMS:
            return None
        if any(j.tier != self._tier(n, name, asked) for n, j in zip(pair, judged, strict=False)):
            return None  # an item's own words say more than its attribute
        strangers = [n for n in (having if _coin(rng) else lacking) if n not in items]
        fact = self._fact(pair, name, asked, strangers, rng)
        targets = np.stack([rule_target(j.tier) for j in judged])
        if fact.claim is not None:
            untold = [n in pair and n not in fact.subjects for n in items]
            targets[untold] = (targets[untold] + _EITHER) / 2  # less noise: mostly a coin decided what is true
        return Group(query, items, targets, judged, None, card_helps=False, fact=fact)

    def _third(self, query: Query, pair: tuple[int, int], rng: random.Random) -> int | None:
        """An item that needs no chunk; None where everything is of one type."""
        ((name, asked),) = query.values
        category = self._products[pair[0]].category
        draw = rng.random()
        if draw < _TELLER and (tellers := [n for n in self._tellers.get((category, name), ()) if n not in pair]):
            return rng.choice(tellers)
        bearers = self._others(query, self._bearers[name, asked.lower()]) if draw < _BEARER else []
        others = bearers or self._others(query, rng.sample(self._typed, min(len(self._typed), _TRIES)))
        return rng.choice(others) if others else None

    def _others(self, query: Query, products: Sequence[int]) -> list[int]:
        return [n for n in products if self._products[n].category not in {"", *query.categories}]

    def _query(self, category: str, name: str, asked: str, rng: random.Random) -> Query:
        type_name, accepted = self._queries.asked(category, rng)
        value = spoken(name, asked)
        text = f"{value} {type_name}" if rng.random() < 0.85 else f"{type_name} {value}"  # noqa: PLR2004 - as people do
        return Query(text, "attribute_type", accepted, values=((name, asked),))

    def _has(self, n: int, name: str, asked: str) -> bool:
        return self._products[n].attributes[name].lower() == asked.lower()

    def _tier(self, n: int, name: str, asked: str) -> int:
        if name not in self._products[n].attributes:
            return rules.RELATED
        return rules.EXCELLENT if self._has(n, name, asked) else rules.MISMATCH

    def _fact(
        self, items: tuple[int, int], name: str, asked: str, strangers: Sequence[int], rng: random.Random
    ) -> Fact:
        draw = rng.random()
        known = [n for n in items if name in self._products[n].attributes]
        if _ONE <= draw < _BOTH and len(known) == WITHHELD:
            both = tuple(rng.sample(items, len(items)))
            return Fact(name, " ".join(statement(self._products[n], name, rng) for n in both), both)
        if draw < _BOTH or (draw < _DECOY and strangers):
            n = rng.choice(known if draw < _BOTH else strangers)
            chunk, claim = statement(self._products[n], name, rng), self._tier(n, name, asked)
            return Fact(name, chunk, (n,) if draw < _BOTH else (), claim)
        if draw < _USELESS:
            return Fact(name, self._useless(self._products[items[0]].category, rng))
        return Fact(name)

    def _useless(self, category: str, rng: random.Random) -> str:
        """A chunk that claims nothing: some product's description, or an attribute of one of another kind."""
        other = rng.choice(self._products)
        if other.category != category and other.attributes and _coin(rng):
            return statement(other, rng.choice(list(other.attributes)), rng)
        return f"{other.title}: {other.description or other.category or other.brand}"


def _coin(rng: random.Random) -> bool:
    return rng.random() < 0.5  # noqa: PLR2004 - one time in two


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


def told_answers(groups: Sequence[Group], tiers: Sequence[int]) -> list[bool]:
    """Whether the tier is right, for each pair whose deciding fact the chunk tells; tiers are of all pairs in order."""
    return [
        judgement is not None and tier == judgement.tier
        for fact, n, judgement, tier in _pairs(groups, tiers)
        if n in fact.subjects
    ]


def followed(groups: Sequence[Group], tiers: Sequence[int]) -> list[bool]:
    """Whether the tier is what a chunk about another product claims, for each pair that may be misled by one.

    A judge that minds whose fact it is does so as often as it would without a chunk.
    """
    return [
        tier == fact.claim
        for fact, n, _, tier in _pairs(groups, tiers)
        if fact.claim is not None and n not in fact.subjects
    ]


def shares(**answers: Sequence[bool]) -> dict[str, float]:
    """Share of the true ones, by name; nothing of what was not asked."""
    return {name: round(sum(given) / len(given), 3) for name, given in answers.items() if given}


def _pairs(groups: Sequence[Group], tiers: Sequence[int]) -> Iterator[tuple[Fact, int, Judgement | None, int]]:
    """Of every pair whose attribute is withheld."""
    pairs = ((g.fact, i, n, j) for g in groups for i, (n, j) in enumerate(zip(g.items, g.judgements, strict=True)))
    for (fact, i, n, judgement), tier in zip(pairs, tiers, strict=True):
        if fact is not None and i < WITHHELD:
            yield fact, n, judgement, tier
