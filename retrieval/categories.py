"""The category of a product when the catalogue has no category column, read from its title.

Distributors write titles by a grammar: brand + [series] + name + category phrase + values, as in
"Samsung CLX-C8380A toner cartridge Original Cyan 1 pc(s)". The category phrase is the run of lower-case words after the
name. Phrases seen at least twice become the vocabulary; a title that does not follow the grammar takes the longest
vocabulary phrase in it. What is still open is classified by naive Bayes over attributes and words, learned from the
products that did tell, and left empty where that is not sure.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retrieval.catalogue import Product

MAX_VALUE: Final = 16  # characters; longer values are particular to a product
MAX_CLOSED: Final = 3  # so many values or fewer, and an attribute is told by its value what a product is not
MIN_COUNT: Final = 2  # a phrase seen once is as often a slip of the grammar as a category
MIN_EXAMPLES: Final = 10  # fewer say too little about a category's words
PRIOR: Final = 2.0  # weight of the whole catalogue in a category's estimates, in products
MIN_EVIDENCE: Final = 6.0  # nats over "none", per square root of features: 97 % right on held-out titles
MIN_MARGIN: Final = 4.0  # nats over the second best category
_WORD: Final = re.compile(r"^[a-z][a-z'/&,-]*$")
_ACRONYM: Final = re.compile(r"^[A-Z]{2}[A-Z0-9/-]*$")
_BRACKETED: Final = re.compile(r"^\([A-Za-z/ ]+\)$")
_NOT_A_CATEGORY: Final = frozenset(
    {"black", "blank", "other", "portable", "not categorized", "multifunctional", "holder"}
)
_NOT_LETTERS: Final = re.compile(r"[^a-z0-9'/&()-]+")
_TERM: Final = re.compile(r"[a-z][a-z'-]+")


def with_categories(products: Sequence[Product]) -> list[Product]:
    """Fill the empty categories. A category that the catalogue gives is kept as it is, and teaches the others."""
    phrases = [p.category or _phrase_after_name(p) for p in products]
    given = {p.category for p in products if p.category}
    counts = Counter(phrases)
    vocabulary = given | {c for c, n in counts.items() if c and n >= MIN_COUNT and c not in _NOT_A_CATEGORY}
    found = [
        phrase if phrase in vocabulary else _phrase_inside(product, vocabulary)
        for phrase, product in zip(phrases, products, strict=True)
    ]
    guessed = _classify(products, found) if any(found) else found
    return [replace(p, category=c) for p, c in zip(products, guessed, strict=True)]


def _after_name(product: Product) -> str:
    at = product.title.rfind(product.name) if product.name else -1
    return product.title[at + len(product.name) :] if at >= 0 else ""


def _phrase_after_name(product: Product) -> str:
    words = _after_name(product).split()
    start = 1 if len(words) > 1 and _ACRONYM.match(words[0]) and _WORD.match(words[1]) else 0
    end = start
    while end < len(words) and _WORD.match(words[end]):
        end += 1
    if end > start and end < len(words) and _BRACKETED.match(words[end]):
        end += 1
    return " ".join(words[:end]) if end > start else ""


def _phrase_inside(product: Product, vocabulary: Iterable[str]) -> str:
    """The longest phrase in the title, else in the description up to its first comma, in any case of letters.

    A single word counts only right after the name or at the end; elsewhere ("notebook battery") it is a modifier.
    """
    after = _plain(_after_name(product))

    def inside(text: str, phrase: str) -> bool:
        forms = (f" {phrase.lower()} ", f" {phrase.lower()}s ")
        if " " in phrase:
            return any(form in text for form in forms)
        return text.endswith(forms) or after.startswith(forms)

    for text in (_plain(product.title), _plain(product.description.split(",")[0])):
        if found := [phrase for phrase in vocabulary if inside(text, phrase)]:
            return max(found, key=lambda phrase: (len(phrase), phrase))
    return ""


def _plain(text: str) -> str:
    return f" {_NOT_LETTERS.sub(' ', text.lower()).strip()} "


def _features(product: Product) -> set[str]:
    words = _TERM.findall(f"{product.title} {product.description}".lower())
    told = {f"={name}" for name in product.attributes}
    told |= {f"={name}={v.lower()}" for name, v in product.attributes.items() if len(v) <= MAX_VALUE and v.isascii()}
    return told | {w for w in words if w != product.brand.lower()}


def _classify(products: Sequence[Product], found: Sequence[str]) -> list[str]:
    """Naive Bayes over the features present, each class against the catalogue as a whole, which is the class 'none'."""
    features = [_features(p) for p in products]
    sizes = Counter(c for c in found if c)
    classes = sorted(c for c, n in sizes.items() if n >= MIN_EXAMPLES)
    if len(classes) < 2:  # noqa: PLR2004 - nothing to tell apart
        return list(found)
    number = {c: i for i, c in enumerate(classes)}
    overall = Counter(f for own in features for f in own)
    seen: defaultdict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(classes), np.float32))
    for own, category in zip(features, found, strict=True):
        for feature in own if category in number else ():
            seen[feature][number[category]] += 1
    size = np.array([sizes[c] for c in classes], np.float32)
    weights = {}
    for feature, n in seen.items():
        if overall[feature] >= MIN_EXAMPLES:
            share = overall[feature] / len(products)
            weights[feature] = np.log((n + PRIOR * share) / (size + PRIOR) / share)
    kinds = _closed_values(products, found, classes)
    result = list(found)
    for i, own in enumerate(features):
        known = [weights[f] for f in own if f in weights]
        if result[i] or not known:
            continue
        score = np.sum(known, axis=0)
        score[
            [any(v not in closed[a] for a, v in products[i].attributes.items() if a in closed) for closed in kinds]
        ] = -np.inf
        second, best = np.argsort(score)[-2:]
        if score[best] >= MIN_EVIDENCE * math.sqrt(len(known)) and score[best] - score[second] >= MIN_MARGIN:
            result[i] = classes[best]
    return result


def _closed_values(
    products: Sequence[Product], found: Sequence[str], classes: Sequence[str]
) -> list[dict[str, set[str]]]:
    """For each class, the attributes that take only a few values in it: no product with another value belongs to it."""
    values: dict[str, defaultdict[str, Counter[str]]] = {c: defaultdict(Counter) for c in classes}
    for product, category in zip(products, found, strict=True):
        for attribute, value in product.attributes.items() if category in values else ():
            values[category][attribute][value] += 1
    return [
        {a: set(n) for a, n in values[c].items() if n.total() >= MIN_EXAMPLES and len(n) <= MAX_CLOSED} for c in classes
    ]
