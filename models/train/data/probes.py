"""The context test set: does a judge use a chunk that helps, and ignore one that does not?

Each probe is a pair whose deciding fact (an attribute value that the query asks for) is withheld from the item: not in
its title, its description or its attributes. It comes four times: with the chunk that holds the fact (`right`), with
none (`none`), with a chunk about something else (`useless`), and with one that states the fact of another product of
the same type, with a value that would turn the verdict (`misleading`). The gold tier is what is true of the product:
best when its value is the asked one, Mismatch when it is not. `kind` names the variant. A product is asked about once,
and probes of one query share its cluster, so that no figure counts what is alike as independent.

Without the chunk the fact cannot be known, so accuracy on `none` is that of a good guess; `right` shows what reading
gains, `useless` and `misleading` what reading without minding whose fact it is costs.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from models.catalogue import attribute_text
from models.errors import DataError
from models.evaluation.probes import VARIANTS
from models.rationale import AttributeVerdict, CategoryVerdict, ContextUse
from models.train.data.schema import Row, RowItem, Verdicts
from models.train.queries import askable, spoken, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.catalogue import Product

_USES: Final = {"right": ContextUse.ADOPT, "useless": ContextUse.IGNORE, "misleading": ContextUse.IGNORE}
LEAST_VALUES: Final = 2  # a value that everything of a type has decides nothing


def probes(
    products: Sequence[Product],
    count: int,
    seed: int,
    *,
    best: str = "4",
    mismatch: str = "2",
    to_learn: bool = False,
) -> list[Row]:
    """Rows of `count` probes, four each; half have the asked value.

    Args:
        products: with categories and attributes.
        count: probes.
        seed: equal seeds give equal probes.
        best: tier of an item that has the asked value.
        mismatch: tier of one that has another.
        to_learn: a coin decides whether the other product has the same value, and values that nothing else has are not
            asked about. Of a chunk that always contradicts the truth a judge learns to believe the opposite, and no
            longer that it says nothing.

    Raises:
        DataError: the catalogue has too few attributes that tell products of a type apart.
    """
    rng, coin = random.Random(seed), random.Random(seed + 1)
    holders: dict[tuple[str, str], dict[str, list[Product]]] = defaultdict(lambda: defaultdict(list))
    for product in products:
        for name, value in product.attributes.items():
            if product.category and askable(name, value):
                holders[product.category, name][value].append(product)
    pool = [
        (product, name)
        for product in products
        for name, value in product.attributes.items()
        if len(holders.get((product.category, name), ())) >= LEAST_VALUES
        and askable(name, value)
        and not told(product, name, value)
    ]
    rng.shuffle(pool)
    drawn: list[tuple[Product, str, dict[str, list[Product]]]] = []
    for product, name in {product.id: (product, name) for product, name in pool}.values():
        if len(drawn) == count:
            break
        strangers = _strangers(product, holders[product.category, name])
        agreeing = product.attributes[name] in strangers
        if len(strangers) > agreeing and (agreeing or not to_learn):
            drawn.append((product, name, strangers))
    if len(drawn) < count:
        raise DataError(f"the catalogue yields {len(drawn)} probes, {count} were asked for")
    rows: list[Row] = []
    for number, (product, name, strangers) in enumerate(drawn):
        true = product.attributes[name]
        other = rng.choice(sorted(strangers.keys() - {true}))
        holds = number % 2 == 0
        asked = true if holds else other
        claimed = coin.choice((true, other)) if to_learn else other
        decoy = rng.choice(strangers[claimed])
        anything = rng.choice(products)
        chunks = {
            "none": None,
            "right": _chunk(product, name, true),
            "useless": _chunk(anything, "description", anything.description or anything.category or anything.title),
            "misleading": _chunk(decoy, name, claimed),
        }
        bare = _bare(product, name, asked)
        tier = best if holds else mismatch
        rows += [
            bare.model_copy(
                update={
                    "tier": tier,
                    "context": chunks[variant],
                    "context_use": _USES.get(variant),
                    "kind": variant,
                }
            )
            for variant in VARIANTS
        ]
    return rows


def _strangers(product: Product, holders: Mapping[str, Sequence[Product]]) -> dict[str, list[Product]]:
    """Value -> who has it and cannot be taken for the product by its title."""
    found = {value: [p for p in who if p.title != product.title] for value, who in holders.items()}
    return {value: who for value, who in found.items() if who}


def told(product: Product, name: str, value: str) -> bool:
    """Whether the title or the description tells an attribute's value."""
    elsewhere = f" {' '.join(words(f'{product.title} {product.description}'))} "
    phrase = " ".join(words(spoken(name, value)))
    return not phrase or f" {phrase} " in elsewhere


def _chunk(product: Product, name: str, value: str) -> str:
    return f"{product.title}: {name} {value}."


def _bare(product: Product, name: str, asked: str) -> Row:
    """The pair without its deciding fact."""
    kept = {n: v for n, v in product.attributes.items() if n != name}
    item = replace(product.item(), attributes=attribute_text(kept))
    true = AttributeVerdict.OK if product.attributes[name] == asked else AttributeVerdict.VIOLATED
    return Row(
        query=f"{spoken(name, asked)} {product.category.lower()}",
        item=RowItem(id=product.id, **asdict(item)),
        verdicts=Verdicts(category=CategoryVerdict.MATCH, attributes={name.replace(",", " "): true}),
        source="probe",
    )
