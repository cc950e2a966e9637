"""Generated queries and their splits."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.cards import Card, make_cards
from retrieval.categories import with_categories
from retrieval.facets import Facets
from retrieval.queries import generate, roughen, split_cards
from tests.retrieval.catalogue import shop

EVERYDAY = {"notebook": ["laptop"]}
PRODUCTS = with_categories(shop())
ENCYCLOPEDIA = [
    Card("category:a-notebooks", "category", "Notebooks", "Notebooks: a category.", {"type": "Notebooks"}, ()),
    Card("attribute:os", "attribute", "Operating system", "OS: x. Values: Linux.", {"attribute": "OS"}, ()),
]
CARDS = [*make_cards(PRODUCTS, EVERYDAY), *ENCYCLOPEDIA]
PAIRS = generate(PRODUCTS, CARDS, EVERYDAY)


def test_facets_name_the_cards_that_answer() -> None:
    """One example of each kind, by the rule."""
    facets = {f.query: (f.gold, f.kind) for f in Facets(PRODUCTS, CARDS, EVERYDAY, random.Random(0))}
    assert facets["laptop"] == (frozenset({"type:notebook", "category:a-notebooks"}), "type")
    assert facets["Lenovo"] == (frozenset({"brand:lenovo"}), "brand")
    assert facets["Lenovo ThinkPad"] == (frozenset({"series:lenovo/thinkpad"}), "series")
    assert facets["Linux Operating system"] == (frozenset({"attribute:os"}), "attribute")
    gold, kind = facets["Brother TN-3100"]
    assert (len(gold), kind) == (1, "supply")
    gold, kind = facets["Brother HL-5200"]
    assert kind == "device"
    assert all("HL-5200" in card.text for card in CARDS if card.id in gold)


def test_equal_seeds_give_equal_queries() -> None:
    """And other seeds others."""
    assert generate(PRODUCTS, CARDS, EVERYDAY) == PAIRS
    assert generate(PRODUCTS, CARDS, EVERYDAY, seed=1) != PAIRS


def test_no_query_and_no_card_is_in_two_splits() -> None:
    """What is measured was never trained on, whatever the seed."""
    pairs = [*PAIRS, *generate(PRODUCTS, CARDS, EVERYDAY, seed=1)]
    split = split_cards(CARDS)
    assert all(split[card] == p.split for p in pairs for card in p.gold)
    assert len({p.query for p in PAIRS}) == len(PAIRS)


def test_cards_that_share_a_product_share_a_split() -> None:
    """A supply and the devices that take it are not divided."""
    split = split_cards(CARDS)
    for one in CARDS:
        for other in CARDS:
            if {one.kind, other.kind} <= {"fits", "takes"} and set(one.products) & set(other.products):
                assert split[one.id] == split[other.id]


def test_a_spelling_of_two_facets_is_left_out() -> None:
    """No rule says which of two things of one name is meant."""
    twin = Card("brand:thinkpad", "brand", "ThinkPad", "ThinkPad: a brand.", {"brand": "ThinkPad"}, ("notebook0",))
    same = [c for c in (*CARDS, twin) if split_cards([*CARDS, twin])[c.id] == "train"]
    queries = {p.query: p.gold for p in generate(PRODUCTS, [*CARDS, twin], EVERYDAY)}
    assert same
    assert queries.get("thinkpad", frozenset()) in (frozenset(), {"brand:thinkpad"}, {"series:lenovo/thinkpad"})


def test_a_card_does_not_crowd_out_others() -> None:
    """At most so many queries for a card and kind."""
    few = generate(PRODUCTS, CARDS, EVERYDAY, per_card=1)
    assert len({(min(p.gold), p.kind) for p in few}) == len(few)


@given(st.from_regex(r"[a-z0-9-]{1,12}( [a-z0-9-]{1,12}){0,3}", fullmatch=True), st.integers())
def test_a_rough_query_is_still_that_query(query: str, seed: int) -> None:
    """Letters and digits stay the same but for a plural s; only their order within one word and hyphens change."""
    rough = roughen(query, random.Random(seed))
    letters = sorted(query.replace("-", "").replace(" ", ""))
    left = sorted(rough.replace("-", "").replace(" ", ""))
    assert left in (letters, sorted([*letters, "s"]))


@pytest.mark.parametrize("query", ["", "a", "tv"])
def test_short_queries_stay(query: str) -> None:
    """A slip in a short word would make another word."""
    assert {roughen(query, random.Random(n)) for n in range(20)} == {query}
