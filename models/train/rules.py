"""The rule engine: step verdicts and a tier for (query, product), from category and attribute agreement alone.

It finds how the item stands to what the query asks; which verdict that gives is said by atoms (rulebook.yaml).

The steps are those of the rationale: category, then each constraint, then the tier that follows from them. Definitions
of the tiers are not public; these follow the proposal that fits 2508.12365 (papers on post-CoT and CumPT): 4 = category
matches and every constraint holds; 3 = category matches, a constraint cannot be verified; 2 = related category (an
accessory, a sibling) or a violated constraint; 1 = another category or intent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.rationale import AttributeVerdict, CategoryVerdict, ContextUse
from models.train.queries import words
from models.train.rulebook import About, Asked, Kin, Rulebook, Told, shipped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from models.catalogue import Product
    from models.train.queries import Query

EXCELLENT, RELATED, MISMATCH, IRRELEVANT = range(4)  # columns of a probability row, best tier first
_GENERIC: Final = frozenset(
    {"accessory", "part", "kit", "set", "unit", "component", "device", "spare", "case", "module"}
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules say of one pair.

    Attributes:
        tier: column, 0 is best of four.
        category: the verdict on the item's type.
        attributes: name and verdict of each thing that the query asks.
        atoms: ids of the atoms that decided, in the order of the verdicts.
    """

    tier: int
    category: CategoryVerdict
    attributes: tuple[tuple[str, AttributeVerdict], ...]
    atoms: tuple[str, ...] = ()


def judge(
    query: Query, product: Product, fits: Collection[str] | None = (), rulebook: Rulebook | None = None
) -> Judgement | None:
    """Judge one pair.

    Args:
        query: what is asked, generated (queries.py) or read from text (reading.py).
        product: the item, with its category when it is known.
        fits: devices that the product is known to fit; None when nobody knows.
        rulebook: the shipped one if not given.

    Returns:
        None when the rules cannot tell: a free phrase, or a product of unknown category.
    """
    if query.kind in ("phrase", "fragment"):
        return None
    kin = _kin(query, product)
    if kin is None:
        return None
    book, asked = rulebook or shipped(), asked_of(query)
    category = book.decide("category", kin, asked)
    decided = [(name, book.decide(facet, told, asked)) for name, facet, told in _told(query, product, fits)]
    attributes = tuple((name, AttributeVerdict(atom.verdict)) for name, atom in decided)
    verdict = CategoryVerdict(category.verdict)
    return Judgement(
        tier=_tier(query, verdict, attributes),
        category=verdict,
        attributes=attributes,
        atoms=tuple(dict.fromkeys((category.id, *(atom.id for _, atom in decided)))),
    )


def asked_of(query: Query) -> Asked:
    """What of a query decides which atoms apply."""
    types = frozenset(c.lower() for c in query.categories)
    return Asked(types, frozenset(words(query.text)))


def facets(query: Query) -> tuple[str, ...]:
    """Names under which the rulebook knows what a query asks beside its type."""
    found = [
        facet for facet, named in (("brand", query.brand), ("model", query.model), ("fits", query.device)) if named
    ]
    return tuple(dict.fromkeys([*found, *(name for name, _ in query.values)]))


def context_use(about: About, query: Query, rulebook: Rulebook | None = None) -> tuple[ContextUse, str]:
    """What a good judge does with a chunk, and the id of the atom that says so."""
    atom = (rulebook or shipped()).decide("context", about, asked_of(query))
    return ContextUse(atom.verdict), atom.id


def reason_of(query: Query, product: Product, judgement: Judgement) -> str:
    """Both sides in few words, and what of the item fails."""
    failed = [f"{name} {verdict}" for name, verdict in judgement.attributes if verdict is not AttributeVerdict.OK]
    return ", ".join([both_sides(query, product, judgement.category), *failed])


def both_sides(query: Query, product: Product, category: CategoryVerdict) -> str:
    """What is wanted and what the item is; of several types that a query may mean, the shortest name."""
    asked = min(query.categories, key=lambda c: (len(c), c)) if query.categories else query.text
    theirs = product.category or " ".join(words(product.title)[:4])
    joiner = "is" if category is CategoryVerdict.MATCH else "but item is"
    return f"wants {asked}, {joiner} {theirs}"


def _kin(query: Query, product: Product) -> Kin | None:
    if not query.categories or product.category in query.categories:
        return Kin.SAME
    if not product.category:
        return None
    theirs = set(_parts(product.category))
    return Kin.KIN if any((set(_parts(c)) & theirs) - _GENERIC for c in query.categories) else Kin.OTHER


def _parts(category: str) -> list[str]:
    return [part for word in words(category) for part in re.split(r"[/-]", word) if part]


def _told(query: Query, product: Product, fits: Collection[str] | None) -> Iterator[tuple[str, str, Told]]:
    """(name, facet, what the item tells) of each thing that the query asks."""
    text = f" {' '.join(words(f'{product.title} {product.description}'))} "
    if query.brand:
        yield "brand", "brand", _brand(query.brand, product, text)
    for name, value in query.values:
        theirs = product.attributes.get(name, "")
        if theirs.lower() == value.lower() or f" {' '.join(words(value))} " in text:
            told = Told.SAYS
        else:
            told = Told.DIFFERS if theirs else Told.SILENT
        yield name.replace(",", " "), name, told
    if query.model:
        yield "model", "model", Told.SAYS if all(f" {w} " in text for w in query.model) else Told.DIFFERS
    if query.device:
        known = Told.SILENT if fits is None else Told.DIFFERS
        yield "fits", "fits", Told.SAYS if query.device in (fits or ()) else known


def _brand(asked: str, product: Product, text: str) -> Told:
    if product.brand.lower() == asked:
        return Told.SAYS
    if f" {asked} " in text:
        return Told.NAMES
    return Told.DIFFERS if product.brand else Told.SILENT


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
