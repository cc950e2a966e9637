"""Cards of a small shop."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from retrieval.cards import MAX_CHARACTERS, Card, key_of, listed, make_cards
from retrieval.catalogue import Product
from retrieval.categories import with_categories
from tests.retrieval.catalogue import shop

PRODUCTS = with_categories(shop())
CARDS = {card.id: card for card in make_cards(PRODUCTS, {"notebook": ["laptop"]})}


def test_every_kind_is_made_and_ids_are_unique() -> None:
    """Brand, type, series and what fits; what a device takes has a test of its own."""
    assert {c.kind for c in CARDS.values()} == {"brand", "type", "series", "fits"}
    assert len(CARDS) == len(make_cards(PRODUCTS, {"notebook": ["laptop"]}))


def test_a_brand_card_says_what_it_makes() -> None:
    """Types by frequency, and series."""
    assert CARDS["brand:lenovo"].text == "Lenovo: a brand of notebook. Series of Lenovo: ThinkPad."


def test_a_type_card_tells_names_accessories_and_differences() -> None:
    """Everyday names come first; a case belongs to a notebook and is another type."""
    notebook = CARDS["type:notebook"].text
    assert "Also written: laptop" in notebook
    assert "Belonging to it, but a different type: notebook case." in notebook
    assert "operating system installed (Windows 10, Windows 11)" in notebook
    case = CARDS["type:notebook-case"].text
    assert case.startswith("notebook case: an accessory, supply or part for notebook.")
    assert "laptop bag" in case


def test_supplies_belong_to_what_they_fit() -> None:
    """The host of toner is found through the models that it names."""
    assert CARDS["type:toner-cartridge"].text.startswith(
        "toner cartridge: an accessory, supply or part for laser printer."
    )


def test_a_card_knows_other_names_of_its_subject() -> None:
    """A type what people call it, a series its name alone, supplies each by brand and name."""
    assert CARDS["type:notebook"].names[0] == "laptop"
    assert CARDS["series:lenovo/thinkpad"].names == ("ThinkPad",)
    card = next(c for c in CARDS.values() if c.kind == "fits" and "toner0" in c.products)
    assert card.names == ("Brother TN-3100", "Brother TN-3102")


def test_a_series_card_names_its_models() -> None:
    """What stands between brand and name in the titles."""
    assert CARDS["series:lenovo/thinkpad"].text == (
        "ThinkPad is a series of Lenovo: notebook. Models: X100, X103, X106, X109."
    )


def test_supplies_for_the_same_devices_share_a_card() -> None:
    """Two toners of a brand for the same printers: one card, which speaks of both."""
    card = next(c for c in CARDS.values() if c.kind == "fits" and "toner0" in c.products)
    assert set(card.products) == {"toner0", "toner2"}
    assert card.text == "Brother toner cartridge TN-3100, TN-3102 fit Brother HL-5200, MFC-8400N."
    assert card.keys == {"brand": "Brother", "type": "toner cartridge", "device": "Brother HL-5200"}


def test_a_device_with_several_kinds_of_supplies_gets_a_card() -> None:
    """What it takes, by type; where one fits card says it all there is none."""
    drum = Product(
        id="drum",
        title="Brother DR-1 printer drum",
        brand="Brother",
        name="DR-1",
        category="printer drum",
        attributes={"compatibility": "HL-5200"},
    )
    cards = [c for c in make_cards([*PRODUCTS, drum]) if c.kind == "takes" and "drum" in c.products]
    assert [c.text for c in cards] == ["Brother HL-5200 takes: toner cartridge TN-3100, TN-3102; printer drum DR-1."]


def test_cards_depend_on_the_products_not_on_chance() -> None:
    """Twice the same; in another order of products the same cards speak of the same products."""
    again = make_cards(PRODUCTS, {"notebook": ["laptop"]})
    assert again == list(CARDS.values())
    shuffled = random.Random(0).sample(PRODUCTS, len(PRODUCTS))
    other = make_cards(shuffled, {"notebook": ["laptop"]})
    assert Counter(c.kind for c in other) == Counter(c.kind for c in again)
    assert {c.id: set(c.products) for c in other if c.kind == "type"} == {
        c.id: set(c.products) for c in again if c.kind == "type"
    }


@pytest.mark.parametrize("products", [[], [Product(id="a", title="Something")], [Product(id="a", title="", brand="B")]])
def test_little_to_say_is_no_card(products: list[Product]) -> None:
    """Poor catalogues give few cards, never an error."""
    assert make_cards(products) == []


def test_texts_are_short() -> None:
    """Lists stop before they fill a chunk."""
    assert listed(["x" * 90] * 9) == ", ".join(["x" * 90] * 2)
    assert len(listed(str(n) for n in range(100)).split(", ")) == 8
    long = Product(id="a", title="t", brand="B", name="n" * 500, attributes={"compatibility": "C10, C20, C30"})
    [card] = make_cards([long])
    assert isinstance(card, Card)
    assert len(card.text) < 500 + MAX_CHARACTERS


def test_ids_are_made_of_letters_and_digits() -> None:
    """Whatever a name holds, an id is plain."""
    assert key_of("Headphones / Headset (on-ear)") == "headphones-headset-on-ear"
    assert key_of("日本") == "x"
