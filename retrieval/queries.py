"""Queries generated from a catalogue, each with the cards that answer it. They train the embedder and measure retrieval.

The rule, by what a query names (the facets are the catalogue's own words, in lower case):

    type              "patch cord", "black toner cartridge"      type card; category card of that name
    brand             "sandberg"                                  brand card
    brand + type      "sandberg patch cord"                       brand card or type card
    series (+ brand)  "stylus photo", "epson stylus photo"        series card
    supply name       "hp 56", "tn-3170 toner"                    fits cards that speak of it
    device (+ type)   "ink for stylus photo r2880"                takes card, fits cards that name the device
    attribute         "display technology", "oled display technology"   attribute card

A third of the queries is roughened as people type: hyphens dropped, a letter wrong, a plural. Cards are divided into three
splits by a hash over groups of cards that share products, and a query belongs to a split only when all of its cards do, so
no card and no query of one split is seen in another.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from retrieval.compatibility import devices_of
from retrieval.types import other_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from retrieval.cards import Card
    from retrieval.catalogue import Product

Split = Literal["train", "validation", "test"]
ROUGH: Final = 1 / 3
COLOURS: Final = ("printing colours", "product colour", "cable colour")
_SHORT_NAME: Final = re.compile(r"(?=.*\d)[\w.-]{2,20}( [\w.-]{1,8}){0,2}")
_HAS_MODEL: Final = re.compile(r"(?=.*\d\d)[\w-]{3,}")
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
    """Pairs of a catalogue and its cards, each query once, in a fixed order for a seed. At most `per_card` per card and kind."""
    rng = random.Random(seed)
    split = _splits(cards)
    pairs: dict[str, Pair] = {}
    used: defaultdict[tuple[str, str], int] = defaultdict(int)
    found = list(_facets(products, cards, everyday or {}, rng))
    rng.shuffle(found)
    for query, gold, kind in found:
        splits = {split[g] for g in gold}
        first = min(gold)
        if len(splits) == 1 and used[first, kind] < per_card:
            text = _rough(query.lower(), rng) if rng.random() < ROUGH else query.lower()
            if text not in pairs:
                used[first, kind] += 1
                pairs[text] = Pair(text, gold, kind, splits.pop())
            elif pairs[text].gold != gold:  # two facets of one spelling: no rule says which is meant
                pairs[text] = Pair(text, pairs[text].gold | gold, "ambiguous", pairs[text].split)
    return sorted((p for p in pairs.values() if p.kind != "ambiguous"), key=lambda p: (p.split, p.kind, p.query))


def _splits(cards: Sequence[Card]) -> dict[str, Split]:
    """Split of each card: 60 % train, 20 % validation, 20 % test. Cards of supplies that share a product stay together."""
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
    names: tuple[Split, ...] = ("train", "train", "train", "validation", "test")
    return {c.id: names[int(hashlib.sha256(find(c.id).encode()).hexdigest(), 16) % len(names)] for c in cards}


def _facets(
    products: Sequence[Product], cards: Sequence[Card], everyday: Mapping[str, Sequence[str]], rng: random.Random
) -> Iterator[tuple[str, frozenset[str], str]]:
    by_kind: defaultdict[str, list[Card]] = defaultdict(list)
    for card in cards:
        by_kind[card.kind].append(card)
    by_id = {p.id: p for p in products}
    categories: defaultdict[str, set[str]] = defaultdict(set)
    for card in by_kind["category"]:
        for leaf in re.split(r", | & ", card.title):
            categories[_singular(leaf.lower())].add(card.id)
    types = {c.keys["type"]: frozenset({c.id, *categories.get(_singular(c.title.lower()), ())}) for c in by_kind["type"]}
    brands = {c.keys["brand"]: c.id for c in by_kind["brand"]}
    words = {t: (t, *found) for t, found in other_words(products, types, everyday).items()}

    for name, gold in types.items():
        own = [p for c in by_kind["type"] if c.keys["type"] == name for p in c.products]
        for word in words[name]:
            yield word, gold, "type"
            yield f"{_colour(by_id[rng.choice(own)])} {word}".strip(), gold, "type"
    for leaf, gold_ids in categories.items():
        if leaf not in types:
            yield leaf, frozenset(gold_ids), "category"
    for card in by_kind["attribute"]:
        yield card.title, frozenset({card.id}), "attribute"
        values = card.text.partition("Values: ")[2].rstrip(".").split(", ")
        yield f"{rng.choice(values)} {card.title}".strip(), frozenset({card.id}), "attribute"
    for card in by_kind["brand"]:
        yield card.title, frozenset({card.id}), "brand"
        for product in (by_id[i] for i in rng.sample(card.products, min(12, len(card.products)))):
            if product.category in types:
                both = frozenset({card.id, *types[product.category]})
                yield f"{card.title} {rng.choice(words[product.category])}", both, "brand type"
    yield from _series(by_kind["series"])
    yield from _supplies(by_kind, by_id, words, brands, rng)


def _series(cards: Iterable[Card]) -> Iterator[tuple[str, frozenset[str], str]]:
    by_name: defaultdict[str, set[str]] = defaultdict(set)
    for card in cards:
        by_name[card.keys["series"].lower()].add(card.id)
    for card in cards:
        yield card.keys["series"], frozenset(by_name[card.keys["series"].lower()]), "series"
        yield f"{card.keys['brand']} {card.keys['series']}", frozenset({card.id}), "series"


def _supplies(
    by_kind: dict[str, list[Card]],
    by_id: dict[str, Product],
    words: dict[str, tuple[str, ...]],
    brands: dict[str, str],
    rng: random.Random,
) -> Iterator[tuple[str, frozenset[str], str]]:
    names = {b.lower(): b for b in brands} | {p.brand.lower(): p.brand for p in by_id.values() if p.brand}
    by_name: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    by_device: defaultdict[str, set[str]] = defaultdict(set)
    spelled: dict[str, tuple[str, str]] = {}
    for card in by_kind["fits"]:
        for i in card.products:
            by_name[by_id[i].brand, by_id[i].name or by_id[i].title].add(card.id)
        for device in devices_of(by_id[card.products[0]], names):
            by_device[str(device)].add(card.id)
            spelled[str(device)] = (device.family, device.model)
    for card in by_kind["takes"]:
        shared = [set(devices_of(by_id[i], names)) for i in card.products]
        for device in set.intersection(*shared):
            by_device[str(device)].add(card.id)
    for (brand, name), gold in by_name.items():
        if _SHORT_NAME.fullmatch(name):
            product = next(by_id[i] for c in by_kind["fits"] if c.id in gold for i in c.products if (by_id[i].name or by_id[i].title) == name)
            kinds = words.get(product.category, ())
            yield f"{brand} {name}", frozenset(gold), "supply"
            if kinds:
                yield f"{rng.choice(['', brand])} {name} {rng.choice(kinds)}".strip(), frozenset(gold), "supply"
    for device, gold in sorted(by_device.items()):
        family, model = spelled.get(device, ("", ""))
        if not _HAS_MODEL.fullmatch(model) or not (family or not model.isdigit()):
            continue
        name = f"{family} {model}".strip()
        kinds = [w for c in by_kind["fits"] if c.id in gold for w in words.get(c.keys["type"], ())]
        yield device, frozenset(gold), "device"
        if kinds:
            yield rng.choice(["{d} {t}", "{t} for {d}"]).format(d=name, t=rng.choice(kinds)), frozenset(gold), "device type"


def _colour(product: Product) -> str:
    value = next((product.attributes[a] for a in COLOURS if a in product.attributes), "")
    return value if value.isalpha() else ""


def _singular(text: str) -> str:
    return text[:-1] if text.endswith("s") and not text.endswith("ss") else text


def _rough(query: str, rng: random.Random) -> str:
    """One of the ways in which typed queries differ from a catalogue's spelling."""
    way = rng.randrange(4)
    if way == 0:
        return _HYPHEN.sub("", query)
    if way == 1:
        return _HYPHEN.sub(" ", query)
    words = query.split()
    long = [i for i, w in enumerate(words) if len(w) > 5 and w.isalpha()]  # noqa: PLR2004 - a slip in a short word changes it
    if not long:
        return query
    i = rng.choice(long)
    if way == 2:  # noqa: PLR2004
        words[i] += "" if words[i].endswith("s") else "s"
    else:
        at = rng.randrange(1, len(words[i]) - 1)
        words[i] = words[i][:at] + words[i][at + 1] + words[i][at] + words[i][at + 2 :]
    return " ".join(words)
