"""Plain rows in the terms of the rule engine: what is asked, what the item tells, and where nobody can say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.train import rules
from models.train.data.reading import Reader
from models.train.data.schema import Row, parse_row
from models.train.rulebook import About, shipped

if TYPE_CHECKING:
    from models.train.rules import Judgement

ITEMS: tuple[dict[str, Any], ...] = (
    {"title": "Acme T1 toner cartridge Black", "brand": "Acme", "category": "Supplies > Toner Cartridges"},
    {"title": 'Borel N5 notebook 15.6" 512 GB Silver', "brand": "Borel Inc.", "category": "notebooks"},
    {"title": "Borel N5 notebook case Blue", "brand": "Borel Inc.", "category": "notebook case"},
    {"title": "Canto USB cable 2 m Black", "brand": "Canto", "category": "usb cable"},
)


def row(query: str, item: int, **fields: Any) -> Row:
    return parse_row("here", {"query": query, **ITEMS[item], **fields})


READER = Reader([row("x", n) for n in range(len(ITEMS))], shipped())


def judged(query: str, item: int, **fields: Any) -> Judgement | None:
    found = READER.read(row(query, item, **fields))
    return rules.judge(found.query, found.product, found.fits)


@pytest.mark.parametrize(
    ("query", "item", "category", "attributes"),
    [
        ("toner", 0, "match", {}),
        ("Acme black toners", 0, "match", {"brand": "ok", "colour": "ok"}),
        ("cyan toner", 0, "match", {"colour": "violated"}),
        ("laptop", 1, "match", {}),
        ("laptop", 2, "related", {}),
        ("laptop", 0, "mismatch", {}),
        ("borel laptop 15 inch", 1, "match", {"brand": "ok", "length": "ok"}),
        ("laptop 1tb", 1, "match", {"capacity": "violated"}),
        ("laptop 500 gb", 1, "match", {"capacity": "ok"}),
        ("cable", 3, "match", {}),
        ("2m usb cable", 3, "match", {"length": "ok"}),
        ("200cm usb cable", 3, "match", {"length": "ok"}),
        ("t1", 0, "match", {"model": "ok"}),
        ("acme t2", 0, "match", {"brand": "ok", "model": "violated"}),
        ("wireless laptop", 1, "match", {"wireless": "unknown"}),
        ("laptop without silver", 1, "match", {"without": "violated"}),
        ("case for borel n5", 2, "match", {"fits": "ok"}),
        ("toner for laser 9000", 0, "match", {"fits": "unknown"}),
    ],
)
def test_both_sides_are_read(query: str, item: int, category: str, attributes: dict[str, str]) -> None:
    """Types by any of their names, brands, colours, measures across units, models, devices and what is ruled out."""
    found = judged(query, item)
    assert found is not None
    assert (found.category, dict(found.attributes)) == (category, attributes)


@pytest.mark.parametrize(
    "query",
    [
        "something nice",
        "acme flux capacitor",  # what it names beside the brand may be a type
        "black white toner",  # which of the two
        "16 gb 512 gb laptop",
        "what laptop should my old father take on trips abroad",
    ],
)
def test_where_the_rules_cannot_tell_they_are_silent(query: str) -> None:
    """A guess would be learned as gold."""
    assert judged(query, 1) is None


def test_an_item_without_a_known_type_is_not_judged() -> None:
    """Neither its category nor its title names one; its title is enough where it does."""
    bare = {"category": "", "brand": "", "attributes": "", "description": ""}
    assert judged("laptop", 0, **bare, title="Thing 5") is None
    found = judged("laptop", 0, **bare, title="Fine laptop sleeve, black")
    assert found is not None
    assert found.category == "related"


@pytest.mark.parametrize(
    ("query", "chunk", "about"),
    [
        ("silver notebook", 'Borel N5 notebook 15.6" 512 GB Silver: colour silver.', About.ITEM),
        ("silver notebook", "Canto Z9 notebook: colour silver.", About.OTHER),
        ("borel notebook", "Borel makes fine notebooks.", About.QUERY),
        ("silver notebook", "Whales sing.", About.OTHER),
    ],
)
def test_a_chunk_is_of_the_item_of_the_query_or_of_others(query: str, chunk: str, about: About) -> None:
    """Only what names this very item, and tells what is asked, is of the item."""
    assert READER.read(row(query, 1, context=chunk)).about is about


def test_only_a_chunk_about_the_item_tells_of_it() -> None:
    """A colour that another product's chunk states is not this product's."""
    plain = {"title": "Borel N500 notebook"}
    assert dict(judged("red notebook", 1, **plain).attributes) == {"colour": "unknown"}  # type: ignore[union-attr]  # judged
    own = judged("red notebook", 1, **plain, context="Borel N500 notebook: colour red.")
    other = judged("red notebook", 1, **plain, context="Canto Z9 notebook: colour red.")
    assert own is not None
    assert other is not None
    assert (dict(own.attributes), dict(other.attributes)) == ({"colour": "ok"}, {"colour": "unknown"})


@given(st.text(min_size=1, max_size=60).filter(str.strip), st.text(max_size=60))
def test_any_text_is_read(query: str, chunk: str) -> None:
    """Whatever callers' text holds, reading ends in a reading; verdict names are fit for a row."""
    plain = parse_row("here", {"query": query, **ITEMS[0]}).model_copy(update={"context": chunk})
    found = READER.read(plain)
    judgement = rules.judge(found.query, found.product, found.fits)
    assert judgement is None or all("," not in name and name.strip() for name, _ in judgement.attributes)
