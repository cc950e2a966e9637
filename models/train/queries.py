"""Queries that a catalogue's shoppers could type, generated from the catalogue itself. No human text is used.

Each kind of query knows what it asks for (a category, a brand, attribute values, a model name, a device to fit), so
that `rules` can judge any product against it. Phrases and fragments of titles ask for nothing that a rule could check;
the sentence encoder alone judges those. They are the most numerous, because they are the most natural.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.catalogue import Product

_WORD: Final = re.compile(r"[a-z0-9][a-z0-9.+\-/]*[a-z0-9+]|[a-z0-9]")
_STOP: Final = frozenset(
    "a an and by for from in of on or the to with w x m f ft pc pcs s".split()  # noqa: SIM905 - a list of words
)
PHRASE_TITLES: Final = (5, 3000)  # a phrase in fewer titles is a fragment, in more it is a word like "black"
# Attributes that people name in queries; physical dimensions, packaging and certificates are not among them.
_UNASKED: Final = re.compile(
    r"width|height|depth|weight|length$|quantity|package|pallet|case|temperature|humidity|certif|country|code|date|"
    r"status|harmonized|rohs|compliance|lithography|last change|dimensions|thermal|page yield|master|altitude|warranty"
)
KINDS: Final[dict[str, float]] = {
    "phrase": 0.30,
    "fragment": 0.10,
    "type": 0.14,
    "brand_type": 0.12,
    "attribute_type": 0.16,
    "model": 0.09,
    "device_type": 0.05,
    "brand": 0.04,
}


def words(text: str) -> list[str]:
    """Lower-case words of a title or query, in order."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, slots=True)
class Query:
    """A generated query and what it asks for; empty means that it does not ask.

    Attributes:
        text: what the shopper types.
        kind: one of KINDS.
        categories: categories that satisfy it.
        brand: the brand it names.
        values: attribute name and value pairs it names.
        model: words of a model name it names.
        device: the device that the item must fit.
    """

    text: str
    kind: str
    categories: frozenset[str] = frozenset()
    brand: str = ""
    values: tuple[tuple[str, str], ...] = ()
    model: tuple[str, ...] = ()
    device: str = ""


def synonyms() -> dict[str, tuple[str, ...]]:
    """Everyday names of product types, from the committed list; no catalogue spells them all."""
    text = files("models.train").joinpath("synonyms.yaml").read_text()
    return {name: tuple(others) for name, others in yaml.safe_load(text).items()}


def spellings(category: str, everyday: dict[str, tuple[str, ...]]) -> list[str]:
    """Ways to ask for a category: its parts around a slash, its acronym, its everyday names."""
    plain = re.sub(r"\s*\([^)]*\)", "", category).strip().lower()
    found = [plain]
    found += [acronym.lower() for acronym in re.findall(r"\(([^)]+)\)", category)]
    if "/" in plain:
        head, _, tail = plain.rpartition(" ") if "/" not in plain.split()[-1] else ("", "", plain)
        found += [f"{head} {part}".strip() for part in tail.split("/")] if "/" in tail else []
        found += [plain.replace("/", " ")]
    found += [name for part in dict.fromkeys(found) for name in everyday.get(part, ())]
    return list(dict.fromkeys(f for f in found if f))


@dataclass
class QueryMaker:
    """Generates queries from products with categories; equal seeds give equal queries.

    Attributes:
        products: the catalogue's training part.
        devices: device name -> categories of what fits it, from compatibility attributes or cards.
    """

    products: Sequence[Product]
    devices: Sequence[tuple[str, str]] = ()
    everyday: dict[str, tuple[str, ...]] = field(default_factory=synonyms)

    @cached_property
    def _by_category(self) -> dict[str, list[Product]]:
        groups: dict[str, list[Product]] = defaultdict(list)
        for product in self.products:
            if product.category:
                groups[product.category].append(product)
        return dict(groups)

    @cached_property
    def _heads(self) -> dict[str, frozenset[str]]:
        """Word -> categories that end in it: "cable" asks for any of the cables."""
        heads: dict[str, set[str]] = defaultdict(set)
        for category in self._by_category:
            for spelling in spellings(category, {}):
                heads[spelling.split()[-1]].add(category)
        return {head: frozenset(found) for head, found in heads.items() if len(found) > 1}

    @cached_property
    def _phrases(self) -> list[str]:
        """One- and two-word phrases by how natural a query they are."""
        counts: Counter[str] = Counter()
        for product in self.products:
            title = words(product.title)
            pairs = [f"{a} {b}" for a, b in pairwise(title) if a not in _STOP and b not in _STOP]
            counts.update(set([w for w in title if w not in _STOP and not w.isdigit()] + pairs))
        low, high = PHRASE_TITLES
        return sorted(p for p, n in counts.items() if low <= n <= high and len(p) > 2)

    def make(self, count: int, seed: int) -> list[Query]:
        """Generate that many queries, kinds mixed by KINDS."""
        rng = random.Random(seed)
        makers = {kind: getattr(self, f"_{kind}") for kind in KINDS}
        made: list[Query] = []
        while len(made) < count:
            kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
            query = makers[kind](rng)
            if query is not None and query.text:
                made.append(query)
        return made

    def everyday_types(self) -> list[Query]:
        """Each everyday name alone, and in the plural, as a query for every type that has it."""
        named: dict[str, set[str]] = defaultdict(set)
        for category in self._by_category:
            for name in {*spellings(category, self.everyday)} - {*spellings(category, {})}:
                named[name].add(category)
        asked = {
            text: frozenset(types) | self._heads.get(name, frozenset())
            for name, types in sorted(named.items())
            for text in ((name,) if name.endswith("s") else (name, f"{name}s"))
        }
        return [Query(text, "type", accepted) for text, accepted in asked.items()]

    def _category(self, rng: random.Random) -> str:
        # Square root: common categories are asked for more often, rare ones still are.
        names = list(self._by_category)
        return rng.choices(names, [len(self._by_category[n]) ** 0.5 for n in names])[0]

    def asked(self, category: str, rng: random.Random) -> tuple[str, frozenset[str]]:
        """A spelling of the category, or of its head word, and every category that satisfies it."""
        text = rng.choice(spellings(category, self.everyday))
        accepted = frozenset({category})
        head = text.split()[-1]
        if head in self._heads and (text == head or rng.random() < 0.15):
            text, accepted = head, self._heads[head] | accepted
        if rng.random() < 0.3 and not text.endswith("s"):
            text += "s"
        return text, accepted

    def _type(self, rng: random.Random) -> Query:
        text, accepted = self.asked(self._category(rng), rng)
        return Query(text, "type", accepted)

    def _brand_type(self, rng: random.Random) -> Query:
        category = self._category(rng)
        product = rng.choice(self._by_category[category])
        text, accepted = self.asked(category, rng)
        brand = product.brand.lower()
        return Query(f"{brand} {text}" if rng.random() < 0.85 else f"{text} {brand}", "brand_type", accepted, brand)

    def _attribute_type(self, rng: random.Random) -> Query | None:
        category = self._category(rng)
        product = rng.choice(self._by_category[category])
        pool = [(n, v) for n, v in product.attributes.items() if askable(n, v)]
        if not pool:
            return None
        chosen = rng.sample(pool, min(len(pool), 1 if rng.random() < 0.75 else 2))
        text, accepted = self.asked(category, rng)
        brand = product.brand.lower() if rng.random() < 0.2 else ""
        asked = " ".join(spoken(n, v) for n, v in chosen)
        parts = [brand, asked, text] if rng.random() < 0.8 else [brand, text, asked]
        return Query(" ".join(p for p in parts if p), "attribute_type", accepted, brand, tuple(chosen))

    def _model(self, rng: random.Random) -> Query | None:
        product = rng.choice(self.products)
        name = [w for w in words(product.name or product.title) if w not in _STOP][:5]
        if not name:
            return None
        size = min(len(name), rng.choice((1, 2, 2, 3)))
        start = rng.randrange(len(name) - size + 1) if rng.random() < 0.4 else 0
        model = tuple(name[start : start + size])
        brand = product.brand.lower() if rng.random() < 0.4 else ""
        return Query(" ".join((*([brand] if brand else []), *model)), "model", brand=brand, model=model)

    def _device_type(self, rng: random.Random) -> Query | None:
        if not self.devices:
            return None
        device, category = rng.choice(self.devices)
        if category not in self._by_category:
            return None
        text, accepted = self.asked(category, rng)
        form = rng.choice(("{device} {text}", "{text} for {device}", "{text} {device}"))
        return Query(form.format(device=device.lower(), text=text), "device_type", accepted, device=device)

    def _brand(self, rng: random.Random) -> Query:
        brand = rng.choice(self.products).brand.lower()
        return Query(brand, "brand", brand=brand)

    def _phrase(self, rng: random.Random) -> Query:
        return Query(rng.choice(self._phrases), "phrase")

    def _fragment(self, rng: random.Random) -> Query | None:
        title = words(rng.choice(self.products).title)
        size = min(len(title), rng.choice((2, 3, 3, 4)))
        start = rng.randrange(len(title) - size + 1) if title else 0
        return Query(" ".join(title[start : start + size]), "fragment") if title else None


def askable(name: str, value: str) -> bool:
    """Whether people would name this attribute value in a query."""
    return value.lower() != "no" and len(value) <= 24 and value.count(",") == 0 and not _UNASKED.search(name.lower())


def spoken(name: str, value: str) -> str:
    """How people name an attribute value: the value, or the name of a thing that it has."""
    plain = re.sub(r"\s*\([^)]*\)", "", value).lower()
    if plain == "yes":
        return name.lower()
    if plain.replace(".", "").isdigit():
        return f"{plain} {name.lower().split()[-1]}"
    return plain
