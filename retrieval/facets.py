"""What a shopper can name of a catalogue, and the cards that answer: the rule behind generated queries.

type              "patch cord", "black toner cartridge"        type card; category card of that name
brand             "sandberg"                                   brand card
brand + type      "sandberg patch cord"                        brand card or type card
series (+ brand)  "stylus photo", "epson stylus photo"         series card
supply (+ type)   "hp 56", "tn-3170 toner"                     fits cards that speak of it
device (+ type)   "ink for stylus photo r2880"                 takes card, fits cards that name the device
category          "memory accessory"                           category card
attribute         "display technology", "oled display technology"    attribute card
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from retrieval.compatibility import devices_of
from retrieval.product_types import other_words

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping, Sequence

    from retrieval.cards import Card
    from retrieval.catalogue import Product

COLOURS: Final = ("printing colours", "product colour", "cable colour")
TYPES_PER_BRAND: Final = 12
_SHORT_NAME: Final = re.compile(r"(?=.*\d)[\w.-]{2,20}( [\w.-]{1,8}){0,2}")
_MODEL: Final = re.compile(r"(?=.*\d\d)[\w-]{3,}")
_NAMES: Final = re.compile(r", | & ")


@dataclass(frozen=True, slots=True)
class Facet:
    """A query in the catalogue's own words, and the ids of every card that answers it by the rule."""

    query: str
    gold: frozenset[str]
    kind: str


class Facets:
    """Everything that can be named, in a fixed order for a state of the random generator."""

    def __init__(
        self,
        products: Sequence[Product],
        cards: Sequence[Card],
        everyday: Mapping[str, Sequence[str]],
        rng: random.Random,
    ) -> None:
        self._rng = rng
        self._products = {p.id: p for p in products}
        self._brands = {p.brand.lower(): p.brand for p in products if p.brand}
        self._cards: defaultdict[str, list[Card]] = defaultdict(list)
        for card in cards:
            self._cards[card.kind].append(card)
        self._categories: defaultdict[str, set[str]] = defaultdict(set)
        for card in self._cards["category"]:
            for name in _NAMES.split(card.title):
                self._categories[_singular(name.lower())].add(card.id)
        self._types = {
            c.keys["type"]: frozenset({c.id, *self._categories.get(_singular(c.title.lower()), ())})
            for c in self._cards["type"]
        }
        self._words = {t: (t, *found) for t, found in other_words(products, self._types, everyday).items()}

    def __iter__(self) -> Iterator[Facet]:
        yield from self._of_types()
        yield from self._of_encyclopedia()
        yield from self._of_brands()
        yield from self._of_series()
        yield from self._of_supplies()
        yield from self._of_devices()

    def _of_types(self) -> Iterator[Facet]:
        for card in self._cards["type"]:
            gold = self._types[card.keys["type"]]
            for word in self._words[card.keys["type"]]:
                yield Facet(word, gold, "type")
                colour = _colour(self._products[self._rng.choice(card.products)])
                yield Facet(f"{colour} {word}".strip(), gold, "type")

    def _of_encyclopedia(self) -> Iterator[Facet]:
        for name, gold in self._categories.items():
            if name not in self._types:
                yield Facet(name, frozenset(gold), "category")
        for card in self._cards["attribute"]:
            yield Facet(card.title, frozenset({card.id}), "attribute")
            values = card.text.partition("Values: ")[2].rstrip(".").split(", ")
            yield Facet(f"{self._rng.choice(values)} {card.title}".strip(), frozenset({card.id}), "attribute")

    def _of_brands(self) -> Iterator[Facet]:
        for card in self._cards["brand"]:
            yield Facet(card.title, frozenset({card.id}), "brand")
            for i in self._rng.sample(card.products, min(TYPES_PER_BRAND, len(card.products))):
                category = self._products[i].category
                if category in self._types:
                    gold = frozenset({card.id, *self._types[category]})
                    yield Facet(f"{card.title} {self._rng.choice(self._words[category])}", gold, "brand type")

    def _of_series(self) -> Iterator[Facet]:
        same: defaultdict[str, set[str]] = defaultdict(set)
        for card in self._cards["series"]:
            same[card.keys["series"].lower()].add(card.id)
        for card in self._cards["series"]:
            series = card.keys["series"]
            yield Facet(series, frozenset(same[series.lower()]), "series")
            yield Facet(f"{card.keys['brand']} {series}", frozenset({card.id}), "series")

    def _of_supplies(self) -> Iterator[Facet]:
        gold: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        category: dict[tuple[str, str], str] = {}
        for card in self._cards["fits"]:
            for product in (self._products[i] for i in card.products):
                gold[product.brand, product.name or product.title].add(card.id)
                category[product.brand, product.name or product.title] = product.category
        for (brand, name), cards in gold.items():
            if _SHORT_NAME.fullmatch(name):
                yield Facet(f"{brand} {name}", frozenset(cards), "supply")
                if words := self._words.get(category[brand, name]):
                    query = f"{self._rng.choice(['', brand])} {name} {self._rng.choice(words)}"
                    yield Facet(query.strip(), frozenset(cards), "supply")

    def _of_devices(self) -> Iterator[Facet]:
        gold: defaultdict[str, set[str]] = defaultdict(set)
        named: dict[str, tuple[str, str]] = {}
        words: defaultdict[str, list[str]] = defaultdict(list)
        for card in self._cards["fits"]:
            for device in devices_of(self._products[card.products[0]], self._brands):
                gold[str(device)].add(card.id)
                named[str(device)] = device.family, device.model
                words[str(device)] += self._words.get(card.keys["type"], ())
        for card in self._cards["takes"]:
            for shared in set.intersection(*(set(devices_of(self._products[i], self._brands)) for i in card.products)):
                gold[str(shared)].add(card.id)
        for device_name, cards in sorted(gold.items()):
            family, model = named.get(device_name, ("", ""))
            if _MODEL.fullmatch(model) and (family or not model.isdigit()):
                yield Facet(device_name, frozenset(cards), "device")
                if words[device_name]:
                    word, short = self._rng.choice(words[device_name]), f"{family} {model}".strip()
                    query = self._rng.choice([f"{short} {word}", f"{word} for {short}"])
                    yield Facet(query, frozenset(cards), "device type")


def _colour(product: Product) -> str:
    value = next((product.attributes[a] for a in COLOURS if a in product.attributes), "")
    return value if value.isalpha() else ""


def _singular(text: str) -> str:
    return text[:-1] if text.endswith("s") and not text.endswith("ss") else text
