"""What a catalogue tells about each product type: other words for it, what goes with it, what tells products apart."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from retrieval.wordlists import wordlist

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from retrieval.catalogue import Product
    from retrieval.compatibility import Device

MIN_PRODUCTS: Final = 3
MIN_SHARE: Final = 0.1  # of the type's products use the phrase or the attribute ...
MIN_PRECISION: Final = 0.7  # ... and of the products with the phrase are of the type;
MIN_PRECISION_OF_WORD: Final = 0.9  # a single word is as often a name or a feature
MIN_LIFT: Final = 3.0  # an attribute that is this much more frequent in the type than in the catalogue
MIN_LETTERS: Final = 3  # "usb" and "ups" are words, "gb" and "cd" mostly units
MIN_HOST_SHARE: Final = 0.2  # of the devices that a type fits, by their types
MAX_SUPPLY_SHARE: Final = 0.1  # a type whose products often say what they fit is no device itself
MAX_SYNONYMS: Final = 6
MAX_HOSTS: Final = 3
MAX_ACCESSORIES: Final = 8
MAX_ATTRIBUTES: Final = 3
MAX_VALUES: Final = 4
MAX_VALUE_LENGTH: Final = 24
ACCESSORY_HEADS: Final = wordlist("accessory heads")
_WORD: Final = re.compile(r"[a-z]+(?:-[a-z]+)*")
_MODEL: Final = re.compile(r"(?=[A-Za-z-]*\d{2})[A-Za-z0-9-]{4,}")
_BRACKETS: Final = re.compile(r"\([^)]*\)")
_IN_BRACKETS: Final = re.compile(r"\(([^)]+)\)")
_ALTERNATIVE: Final = re.compile(r"[/()]")
_STOP: Final = wordlist("function") | wordlist("small") | wordlist("units") | wordlist("colours")
_LOGISTICS: Final = re.compile(
    r"\b(package|pallet|case|carton|weight|width|height|depth|length|dimensions|country|certification|compliance|gtin|"
    r"compatibility|temperature|humidity|altitude|warranty|quantity|box|guide|manual|status|code|colour|color)\b"
)


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """Facts of one type, most telling first."""

    name: str
    synonyms: tuple[str, ...]
    hosts: tuple[str, ...]
    accessories: tuple[str, ...]
    attributes: tuple[tuple[str, tuple[str, ...]], ...]
    brands: tuple[str, ...]
    products: tuple[str, ...] = field(repr=False)


def type_facts(
    products: Sequence[Product], fits: Mapping[str, tuple[Device, ...]], everyday: Mapping[str, Sequence[str]]
) -> list[TypeFacts]:
    """Facts of every type with enough products, in order of first occurrence."""
    groups: defaultdict[str, list[Product]] = defaultdict(list)
    for p in products:
        if p.category:
            groups[p.category].append(p)
    names = [c for c, own in groups.items() if len(own) >= MIN_PRODUCTS]
    hosts = {c: _hosts_by_name(c, names) for c in names}
    for category, found in _hosts_by_device(products, fits).items():
        if category in hosts:
            hosts[category] = tuple(dict.fromkeys((*hosts[category], *found)))[:MAX_HOSTS]
    peculiar = _peculiar(products)
    attribute_counts = Counter(a for p in products for a in p.attributes)
    return [
        TypeFacts(
            name=c,
            synonyms=_synonyms(c, [*_everyday(c, everyday), *peculiar[c]]),
            hosts=hosts[c],
            accessories=tuple(a for a in names if c in hosts[a])[:MAX_ACCESSORIES],
            attributes=_attributes(groups[c], attribute_counts, len(products)),
            brands=tuple(b for b, _ in Counter(p.brand for p in groups[c] if p.brand).most_common(5)),
            products=tuple(p.id for p in groups[c]),
        )
        for c in names
    ]


def _hosts_by_name(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """A "notebook case" belongs to "notebook", "projector lamp" to "data projector": what is left without its head."""
    base = _host_words(name)
    found = []
    for other in names if base else ():
        if other != name and not _host_words(other):
            alternatives = [part.strip() for part in _ALTERNATIVE.split(other.lower()) if part.strip()]
            exact = not base.isdisjoint((other.lower(), *alternatives))
            if exact or not base.isdisjoint(part.split()[-1] for part in alternatives):
                found.append((not exact, len(other), other))
    return tuple(other for _, _, other in sorted(found))[:MAX_HOSTS]


def _host_words(name: str) -> frozenset[str]:
    """Of "printer/scanner spare part" printer and scanner. Empty when the name's head is not an accessory's."""
    words = name.lower().replace("/", " / ").split()
    end = len(words)
    while end and (words[end - 1] in ACCESSORY_HEADS or words[end - 1] == "/"):
        end -= 1
    if end in (0, len(words)):
        return frozenset()
    return frozenset(part.strip() for part in " ".join(words[:end]).split("/") if part.strip())


def _hosts_by_device(products: Sequence[Product], fits: Mapping[str, tuple[Device, ...]]) -> dict[str, tuple[str, ...]]:
    """Types of the products whose names hold a model that supplies say they fit."""
    models: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for p in products:
        if p.category and p.id not in fits:
            for model in set(_MODEL.findall(p.name or p.title)):
                models[p.brand, model.lower()][p.category] += 1
    sizes = Counter(p.category for p in products)
    supplies = Counter(p.category for p in products if p.id in fits)
    devices = {c for c, n in sizes.items() if supplies[c] < MAX_SUPPLY_SHARE * n and not _host_words(c)}
    hosts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for p in products:
        for device in fits.get(p.id, ()):
            for category in models.get((device.brand, device.model.lower()), ()):
                if p.category and category != p.category and category in devices:
                    hosts[p.category][category] += 1
    return {
        c: tuple(
            host for host, n in count.most_common(MAX_HOSTS) if n >= max(MIN_PRODUCTS, MIN_HOST_SHARE * count.total())
        )
        for c, count in hosts.items()
    }


def _phrases(product: Product) -> set[str]:
    """Runs of one to three words of name and description."""
    found = set()
    for text in (product.name or product.title, product.description):
        words = [_singular(w) for w in _WORD.findall(text.lower())]
        for n in (1, 2, 3):
            for run in zip(*(words[i:] for i in range(n)), strict=False):
                if _STOP.isdisjoint(run) and min(map(len, run)) >= MIN_LETTERS:
                    found.add(" ".join(run))
    return found


def _singular(word: str) -> str:
    return word.removesuffix("s") if len(word) > MIN_LETTERS and not word.endswith(("ss", "us", "is", "ens")) else word


def _synonyms(name: str, ranked: Sequence[str]) -> tuple[str, ...]:
    chosen = _alternatives(name)
    for phrase in ranked:
        known = " | ".join((name, *chosen)).lower()
        if phrase in known or any(f" {c} ".lower() in f" {phrase} " for c in (name, *chosen)):
            continue  # a part of what stands there already, or that with another word
        chosen.append(phrase)
        if len(chosen) >= MAX_SYNONYMS:
            break
    return tuple(chosen)


def _alternatives(name: str) -> list[str]:
    """Other ways to say a name that holds several.

    "uninterruptible power supply (UPS)" is said with the words or the letters, "printer/scanner spare part" with either
    of the two; nothing for a name without an alternative.
    """
    plain = _BRACKETS.sub("", name).strip()
    found = [plain, *_IN_BRACKETS.findall(name)] if plain != name else []
    words = plain.split()
    for n, word in enumerate(words):
        if "/" in word:
            found += [" ".join([*words[:n], part, *words[n + 1 :]]) for part in word.split("/") if part]
    return list(dict.fromkeys(found))


def _everyday(name: str, everyday: Mapping[str, Sequence[str]]) -> list[str]:
    plain = _BRACKETS.sub("", name.lower()).strip()
    return list(dict.fromkeys(x for part in (plain, *plain.split("/")) for x in everyday.get(part, ())))


def other_words(
    products: Sequence[Product], types: Iterable[str], everyday: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """For each type, everything else it is called: alternatives in its name, everyday names, phrases peculiar to it."""
    ranked = _peculiar(products)
    return {t: [*_alternatives(t), *_everyday(t, everyday), *ranked.get(t, ())] for t in types}


def _peculiar(products: Sequence[Product]) -> dict[str, list[str]]:
    """Type -> phrases that mostly occur with it, from several brands, most telling first."""
    phrases = {p.id: _phrases(p) for p in products}
    overall = Counter(x for found in phrases.values() for x in found)
    brands: defaultdict[str, set[str]] = defaultdict(set)
    groups: defaultdict[str, list[Product]] = defaultdict(list)
    for p in products:
        groups[p.category].append(p)
        for phrase in phrases[p.id]:
            brands[phrase].add(p.brand)
    result = {}
    for category, own in groups.items():
        counts = Counter(x for p in own for x in phrases[p.id])
        result[category] = [
            x
            for _, x in sorted(
                (-n * n / len(own) / overall[x] * len(x.split()) ** 0.5, x)
                for x, n in counts.items()
                if n >= max(MIN_PRODUCTS, MIN_SHARE * len(own))
                and n >= (MIN_PRECISION if " " in x else MIN_PRECISION_OF_WORD) * overall[x]
                and len(brands[x]) > 1
            )
        ]
    return result


def _attributes(
    own: Sequence[Product], overall: Mapping[str, int], total: int
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Attributes peculiar to the type whose values are words, with the commonest values."""
    counts = Counter(a for p in own for a in p.attributes)
    ranked = []
    for attribute, n in counts.items():
        share = n / len(own)
        if _LOGISTICS.search(attribute) or share < MIN_SHARE or share < MIN_LIFT * overall[attribute] / total:
            continue
        values = Counter(p.attributes[attribute] for p in own if attribute in p.attributes)
        common = [v for v, m in values.most_common(MAX_VALUES) if m > 1 and _telling(v)]
        if len(common) > 1:
            ranked.append((-share, attribute, tuple(common)))
    return tuple((a, v) for _, a, v in sorted(ranked)[:MAX_ATTRIBUTES])


def _telling(value: str) -> bool:
    """A short single value with letters that is not merely yes or no."""
    plain = value.lower() not in {"yes", "no", "true", "false", "y", "n"} and "," not in value
    return plain and len(value) <= MAX_VALUE_LENGTH and any(map(str.isalpha, value))
