"""Knowledge cards derived from a product catalogue: deterministic text, no language model.

    brand   what a brand makes, and its series
    type    what a product type is also called, what it is used with, what tells its products apart
    series  whose it is, what it consists of, some models
    fits    which devices a group of supplies fits
    takes   which supplies a group of devices takes

A card says in a few sentences what a shopper or a judge of relevance would have to know, and names no single offer.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from retrieval.compatibility import Device, devices_of
from retrieval.product_types import TypeFacts, type_facts
from retrieval.wordlists import wordlist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from retrieval.catalogue import Product

MIN_PRODUCTS: Final = 3  # fewer say nothing about a brand, type or series as such
MAX_SERIES_WORDS: Final = 3  # more are a sentence
MAX_NAMES: Final = 3
MAX_LISTED: Final = 8
MAX_CHARACTERS: Final = 200
MAX_DEVICES_LISTED: Final = 14
K = TypeVar("K")
_NO_ID: Final = re.compile(r"[^a-z0-9]+")
_SERIES_WORD: Final = re.compile(r"^[A-Z][A-Za-z.'-]*[A-Za-z0-9+]?$")
_BRAND_SHARE: Final = 0.8
COLOURS: Final = wordlist("colours")


@dataclass(frozen=True, slots=True)
class Card:
    """One card.

    `keys` says what it is about (brand, type, series), `products` which products it speaks of, `names` what else than
    its title people call its subject.
    """

    id: str
    kind: str
    title: str
    text: str
    keys: dict[str, str]
    products: tuple[str, ...] = field(repr=False)
    names: tuple[str, ...] = ()


def make_cards(products: Sequence[Product], everyday: Mapping[str, Sequence[str]] | None = None) -> list[Card]:
    """All cards of a catalogue, in a fixed order. Products without a brand or category add to fewer cards.

    Args:
        products: the catalogue.
        everyday: type -> everyday names for it that no catalogue spells ("notebook" -> "laptop").
    """
    series = series_of(products)
    brands = {p.brand.lower(): p.brand for p in products if p.brand}
    fits = {p.id: devices for p in products if (devices := devices_of(p, brands))}
    cards = [
        *_brand_cards(products, series),
        *_type_cards(type_facts(products, fits, everyday or {})),
        *_series_cards(products, series),
        *_fits_cards(products, fits),
        *_takes_cards(products, fits),
    ]
    unique: dict[str, Card] = {}
    for card in cards:
        unique.setdefault(card.id, card)
    return list(unique.values())


def series_of(products: Sequence[Product]) -> dict[str, str]:
    """Product id -> series: what stands between brand and name in a title, or brand's own words that begin the name."""
    before = {p.id: _before_name(p) for p in products}
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for p in products:
        for word in set(p.title.split()):
            words[word][p.brand] += 1

    def owned(word: str, brand: str) -> bool:
        count = words[word]
        return count[brand] >= MIN_PRODUCTS and count[brand] >= _BRAND_SHARE * count.total()

    categories = {w for p in products for w in p.category.lower().split()}
    result = {}
    for p in products:
        named = before[p.id]
        if not named:
            rest = p.title[len(p.brand) :].split() if p.title.startswith(p.brand) else []
            run: list[str] = []
            for word in rest[:MAX_SERIES_WORDS]:
                if not _SERIES_WORD.match(word) or word.lower().rstrip("s") in categories or word.lower() in COLOURS:
                    break
                run.append(word)
            named = run if run and owned(run[0], p.brand) else []
        if named:
            result[p.id] = " ".join(named)
    sizes = Counter((p.brand, result[p.id]) for p in products if p.id in result)
    return {p.id: result[p.id] for p in products if p.id in result and sizes[p.brand, result[p.id]] >= MIN_PRODUCTS}


def _before_name(product: Product) -> list[str]:
    """Words of the title between brand and name."""
    at = product.title.rfind(product.name) if product.name else -1
    if at <= len(product.brand) or not product.title.startswith(product.brand):
        return []
    words = product.title[len(product.brand) : at].split()
    return words if 0 < len(words) <= MAX_SERIES_WORDS and _SERIES_WORD.match(words[0]) else []


def _brand_cards(products: Sequence[Product], series: Mapping[str, str]) -> Iterable[Card]:
    for brand, own in _grouped(products, lambda p: p.brand):
        types = Counter(p.category for p in own if p.category)
        lines = Counter(series[p.id] for p in own if p.id in series)
        if not brand or len(own) < MIN_PRODUCTS or not (types or lines):
            continue
        text = f"{brand}: a brand"
        text += f" of {listed(c for c, _ in types.most_common(MAX_LISTED))}." if types else "."
        if lines:
            text += f" Series of {brand}: {listed(s for s, _ in lines.most_common(MAX_LISTED))}."
        yield Card(f"brand:{key_of(brand)}", "brand", brand, text, {"brand": brand}, tuple(p.id for p in own))


def _type_cards(facts: Iterable[TypeFacts]) -> Iterable[Card]:
    for fact in facts:
        text = f"{fact.name}: a product type."
        if fact.hosts:
            text = f"{fact.name}: an accessory, supply or part for {listed(fact.hosts)}."
        if fact.synonyms:
            text += f" Also written: {listed(fact.synonyms)}."
        if fact.accessories:
            text += f" Belonging to it, but a different type: {listed(fact.accessories)}."
        if fact.attributes:
            text += f" Told apart by {'; '.join(f'{a} ({listed(v)})' for a, v in fact.attributes)}."
        if fact.brands:
            text += f" Brands: {listed(fact.brands)}."
        names = fact.synonyms[:MAX_NAMES]
        yield Card(f"type:{key_of(fact.name)}", "type", fact.name, text, {"type": fact.name}, fact.products, names)


def _series_cards(products: Sequence[Product], series: Mapping[str, str]) -> Iterable[Card]:
    members = [p for p in products if p.id in series]
    for (brand, line), own in _grouped(members, lambda p: (p.brand, series[p.id])):
        types = Counter(p.category for p in own if p.category)
        text = f"{line} is a series of {brand}"
        text += f": {listed(c for c, _ in types.most_common(4))}." if types else "."
        text += f" Models: {listed(dict.fromkeys(p.name or p.title for p in own))}."
        keys = {"brand": brand, "series": line}
        card_id = f"series:{key_of(brand)}/{key_of(line)}"
        yield Card(card_id, "series", f"{brand} {line}", text, keys, tuple(p.id for p in own), (line,))


def _fits_cards(products: Sequence[Product], fits: Mapping[str, tuple[Device, ...]]) -> Iterable[Card]:
    supplies = [p for p in products if p.id in fits]
    for (brand, category, _), own in _grouped(supplies, lambda p: (p.brand, p.category, frozenset(fits[p.id]))):
        called = list(dict.fromkeys(p.name or p.title for p in own))
        what = f"{brand} {category or 'supply'}".strip()
        text = f"{what} {listed(called)} {'fits' if len(called) == 1 else 'fit'} {_devices(fits[own[0].id])}."
        keys = {"brand": brand, "type": category, "device": str(fits[own[0].id][0])}
        card_id = f"fits:{key_of(brand)}/{key_of(called[0])}-{own[0].id}"
        names = tuple(f"{brand} {name}" for name in called[:MAX_NAMES])
        yield Card(card_id, "fits", f"{what} {called[0]}", text, keys, tuple(p.id for p in own), names)


def _takes_cards(products: Sequence[Product], fits: Mapping[str, tuple[Device, ...]]) -> Iterable[Card]:
    by_id = {p.id: p for p in products}
    supplies: defaultdict[Device, list[str]] = defaultdict(list)
    for product_id, named in fits.items():
        for device in named:
            supplies[device].append(product_id)
    alike: defaultdict[tuple[str, tuple[str, ...]], list[Device]] = defaultdict(list)
    for device, own in supplies.items():
        alike[device.brand, tuple(own)].append(device)
    for (brand, ids), devices in alike.items():
        if len({(by_id[i].brand, by_id[i].category, frozenset(fits[i])) for i in ids}) == 1:
            continue  # the fits card of this one group says it already
        parts = []
        for category, group in _grouped([by_id[i] for i in ids], lambda p: p.category):
            parts.append(f"{category or 'also'} {listed(dict.fromkeys(p.name or p.title for p in group))}")
        text = f"{_devices(devices)} takes: {'; '.join(parts)}."
        keys = {"brand": brand, "device": str(devices[0])}
        names = tuple(map(str, devices[:MAX_NAMES]))
        yield Card(f"takes:{key_of(str(devices[0]))}", "takes", f"Supplies for {devices[0]}", text, keys, ids, names)


def _grouped(products: Iterable[Product], key: Callable[[Product], K]) -> Iterable[tuple[K, list[Product]]]:
    """Products by key, in order of first occurrence."""
    groups: defaultdict[K, list[Product]] = defaultdict(list)
    for product in products:
        groups[key(product)].append(product)
    return groups.items()


def _devices(devices: Iterable[Device]) -> str:
    """Brand and family written once: "HP DeskJet 930c, 932c, HP OfficeJet 5110"."""
    words, last = [], ("", "")
    for n, device in enumerate(devices):
        if n == MAX_DEVICES_LISTED:
            words.append("and others")
            break
        words.append(device.model if (device.brand, device.family) == last else str(device))
        last = device.brand, device.family
    return ", ".join(words)


def listed(values: Iterable[str], most: int = MAX_LISTED) -> str:
    """The first few values, fewer when they are long: a card has to fit a chunk."""
    kept: list[str] = []
    for value in filter(None, values):
        if len(kept) == most or (kept and sum(map(len, kept)) + len(value) > MAX_CHARACTERS):
            break
        kept.append(value)
    return ", ".join(kept)


def key_of(text: str) -> str:
    """A text as a part of a card's id: lower-case letters and digits, anything else a hyphen."""
    return _NO_ID.sub("-", text.lower()).strip("-") or "x"
