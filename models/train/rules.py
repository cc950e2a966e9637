"""The rule engine: step verdicts and a tier for (query, product), from category and attribute agreement alone.

The steps are those of the rationale: category, then each constraint, then the tier that follows from them. Definitions
of the tiers are not public; these follow the proposal that fits 2508.12365 (papers on post-CoT and CumPT): 4 = category
matches and every constraint holds; 3 = category matches, a constraint cannot be verified; 2 = related category (an
accessory, a sibling) or a violated constraint; 1 = another category or intent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.rationale import AttributeVerdict, CategoryVerdict
from models.train.queries import words

if TYPE_CHECKING:
    from collections.abc import Collection

    from models.catalogue import Product
    from models.train.queries import Query

EXCELLENT, RELATED, MISMATCH, IRRELEVANT = range(4)  # columns of a probability row, best tier first
_GENERIC: Final = frozenset(
    {"accessory", "part", "kit", "set", "unit", "component", "device", "spare", "case", "module"}
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules say of one pair."""

    tier: int
    category: CategoryVerdict
    attributes: tuple[tuple[str, AttributeVerdict], ...]


def judge(query: Query, product: Product, fits: Collection[str] = ()) -> Judgement | None:
    """Judge one pair.

    Args:
        query: a generated query.
        product: the item, with its category when it is known.
        fits: devices that the product is known to fit.

    Returns:
        None when the rules cannot tell: a free phrase, or a product of unknown category.
    """
    if query.kind in ("phrase", "fragment"):
        return None
    category = _category(query, product)
    if category is None:
        return None
    attributes = tuple(_attributes(query, product, fits))
    return Judgement(_tier(query, category, attributes), category, attributes)


def _category(query: Query, product: Product) -> CategoryVerdict | None:
    if not query.categories:
        return CategoryVerdict.MATCH
    if product.category in query.categories:
        return CategoryVerdict.MATCH
    if not product.category:
        return None
    theirs = set(_parts(product.category))
    for asked in query.categories:
        ours = set(_parts(asked))
        if (ours & theirs) - _GENERIC:
            return CategoryVerdict.RELATED
    return CategoryVerdict.MISMATCH


def _parts(category: str) -> list[str]:
    return [part for word in words(category) for part in re.split(r"[/-]", word) if part]


def _attributes(query: Query, product: Product, fits: Collection[str]) -> list[tuple[str, AttributeVerdict]]:
    found: list[tuple[str, AttributeVerdict]] = []
    text = f" {' '.join(words(f'{product.title} {product.description}'))} "
    if query.brand:
        if product.brand.lower() == query.brand:
            verdict = AttributeVerdict.OK
        else:  # a third party's product that names the brand may be made for it
            verdict = AttributeVerdict.UNKNOWN if f" {query.brand} " in text else AttributeVerdict.VIOLATED
        found.append(("brand", verdict))
    for name, value in query.values:
        theirs = product.attributes.get(name, "")
        if theirs.lower() == value.lower() or f" {' '.join(words(value))} " in text:
            verdict = AttributeVerdict.OK
        else:
            verdict = AttributeVerdict.VIOLATED if theirs else AttributeVerdict.UNKNOWN
        found.append((name.replace(",", " "), verdict))
    if query.model:
        covered = sum(f" {word} " in text for word in query.model) / len(query.model)
        found.append(("model", AttributeVerdict.OK if covered == 1 else AttributeVerdict.VIOLATED))
    if query.device:
        found.append(("fits", AttributeVerdict.OK if query.device in fits else AttributeVerdict.VIOLATED))
    return found


def _tier(query: Query, category: CategoryVerdict, attributes: tuple[tuple[str, AttributeVerdict], ...]) -> int:
    if category is CategoryVerdict.MISMATCH:
        return IRRELEVANT
    if category is CategoryVerdict.RELATED:
        return MISMATCH
    verdicts = dict(attributes)
    if AttributeVerdict.VIOLATED in verdicts.values():
        # Without a category that matches, a wrong brand or model leaves nothing in common.
        return MISMATCH if query.categories or verdicts.get("brand") is AttributeVerdict.OK else IRRELEVANT
    return RELATED if AttributeVerdict.UNKNOWN in verdicts.values() else EXCELLENT
