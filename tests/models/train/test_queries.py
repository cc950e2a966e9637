"""Generated queries are reproducible and say what they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.train import rules
from models.train.queries import KINDS, QueryMaker, spellings, synonyms

if TYPE_CHECKING:
    from models.catalogue import Product


def test_equal_seeds_give_equal_queries(stock: list[Product]) -> None:
    """The same catalogue and seed give the same queries; another seed gives others."""
    maker = QueryMaker(stock, [("Acme Laser 5", "toner cartridge")])
    assert maker.make(200, 1) == QueryMaker(stock, [("Acme Laser 5", "toner cartridge")]).make(200, 1)
    assert maker.make(200, 1) != maker.make(200, 2)


def test_every_kind_occurs(stock: list[Product]) -> None:
    """Given devices and repeated phrases, every kind of query is made."""
    maker = QueryMaker(stock, [("Acme Laser 5", "toner cartridge")])
    assert {q.kind for q in maker.make(600, 3)} == set(KINDS)


def test_a_query_is_satisfiable(stock: list[Product]) -> None:
    """Type and brand-type queries are answered by at least one product of the catalogue that made them."""
    for query in QueryMaker(stock).make(150, 5):
        if query.kind in ("type", "brand_type"):
            tiers = [j.tier for p in stock if (j := rules.judge(query, p))]
            assert rules.EXCELLENT in tiers, query


def test_spellings() -> None:
    """Slashes, acronyms and everyday names each give a way to ask."""
    assert spellings("headphones/headset", {})[:3] == ["headphones/headset", "headphones", "headset"]
    assert "ups" in spellings("uninterruptible power supply (UPS)", {})
    assert "laptop" in spellings("notebook", synonyms())


def test_everyday_names_alone(stock: list[Product]) -> None:
    """Every everyday name of a type is asked for, also in the plural, and a type that has it satisfies it."""
    everyday = {"notebook": ("laptop", "glasses"), "mouse": ("pointer",), "piano": ("grand",)}
    asked = {q.text: q.categories for q in QueryMaker(stock, everyday=everyday).everyday_types()}
    laptop, mouse = frozenset({"notebook"}), frozenset({"mouse"})
    expected = {"laptop": laptop, "laptops": laptop, "glasses": laptop, "pointer": mouse, "pointers": mouse}
    assert asked == expected
