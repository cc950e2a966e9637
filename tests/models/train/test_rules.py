"""The rule engine's tiers follow from its step verdicts."""

from __future__ import annotations

import pytest

from models.catalogue import Product
from models.rationale import AttributeVerdict, CategoryVerdict
from models.train.queries import Query
from models.train.rules import EXCELLENT, IRRELEVANT, MISMATCH, RELATED, judge

TONER = Product("1", "Acme T1 toner cartridge Black", "Acme", "toner cartridge", {"colour": "Black"}, "", "T1")
CASE = Product("2", "Acme C2 notebook case Blue", "Acme", "notebook case", {}, "", "C2")
UNKNOWN = Product("3", "Acme thing", "Acme")

KINDS = frozenset({"toner cartridge"})


@pytest.mark.parametrize(
    ("query", "product", "tier"),
    [
        (Query("toner", "type", KINDS), TONER, EXCELLENT),
        (Query("toner", "type", KINDS), CASE, IRRELEVANT),
        (Query("laptop", "type", frozenset({"notebook"})), CASE, MISMATCH),
        (Query("ink", "type", frozenset({"ink cartridge"})), TONER, MISMATCH),
        (Query("acme toner", "brand_type", KINDS, "acme"), TONER, EXCELLENT),
        (Query("borel toner", "brand_type", KINDS, "borel"), TONER, MISMATCH),
        (Query("black toner", "attribute_type", KINDS, values=(("colour", "Black"),)), TONER, EXCELLENT),
        (Query("cyan toner", "attribute_type", KINDS, values=(("colour", "Cyan"),)), TONER, MISMATCH),
        (Query("big toner", "attribute_type", KINDS, values=(("yield", "9000"),)), TONER, RELATED),
        (Query("t1", "model", model=("t1",)), TONER, EXCELLENT),
        (Query("acme t1", "model", brand="acme", model=("t1",)), CASE, MISMATCH),
        (Query("t1", "model", model=("t1",)), CASE, IRRELEVANT),
    ],
)
def test_tiers(query: Query, product: Product, tier: int) -> None:
    """Match, accessory, sibling, wrong brand, wrong value, unverified value and model name give their tier."""
    found = judge(query, product)
    assert found is not None
    assert found.tier == tier


def test_rules_abstain() -> None:
    """A free phrase and a product of unknown category are left to the encoder."""
    assert judge(Query("acme thing", "phrase"), TONER) is None
    assert judge(Query("toner", "type", KINDS), UNKNOWN) is None


def test_device_needs_compatibility() -> None:
    """A supply satisfies a device query when it is known to fit, and else violates it."""
    query = Query("acme laser 5 toner", "device_type", KINDS, device="Acme Laser 5")
    fits, other = judge(query, TONER, {"Acme Laser 5"}), judge(query, TONER)
    assert fits is not None
    assert other is not None
    assert (fits.tier, other.tier) == (EXCELLENT, MISMATCH)
    assert other.attributes == (("fits", AttributeVerdict.VIOLATED),)
    assert other.category is CategoryVerdict.MATCH
