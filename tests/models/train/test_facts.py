"""Groups whose deciding fact only a chunk tells."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.manifest import SHIPPED, load_manifest
from models.prompt import PromptWriter
from models.rationale import ContextUse
from models.tokenizer import FieldTokenizer
from models.train import rules
from models.train.examples import ExampleWriter, context_use
from models.train.facts import FACT_ITEMS, FactMaker, statement
from models.train.queries import QueryMaker, words

if TYPE_CHECKING:
    from models.catalogue import Product
    from models.train.pairs import Card, Group

MATERIALS = ("steel", "wood", "glass")


@pytest.fixture(scope="module")
def told_nowhere(stock: list[Product]) -> list[Product]:
    """The stock, with a material that no title or description names."""
    return [replace(p, attributes={**p.attributes, "material": MATERIALS[n % 3]}) for n, p in enumerate(stock)]


@pytest.fixture(scope="module")
def groups(told_nowhere: list[Product]) -> list[Group]:
    return FactMaker(told_nowhere, QueryMaker(told_nowhere)).make(300, 1)


def test_items_do_not_tell(told_nowhere: list[Product], groups: list[Group]) -> None:
    """Only attributes that neither title nor description tell are asked for, and every group withholds what it asks."""
    assert len(groups) == 300
    for group in groups:
        assert len(set(group.items)) == FACT_ITEMS
        assert group.fact is not None
        (asked,) = group.query.values
        assert group.fact.name == asked[0] == "material"
        assert all(asked[1] not in words(told_nowhere[n].title) for n in group.items)


def test_tiers_are_what_is_true(told_nowhere: list[Product], groups: list[Group]) -> None:
    """An item that has the asked value is Excellent, one that has not a Mismatch, whatever the chunk says."""
    for group in groups:
        asked = group.query.values[0][1]
        for n, judgement, target in zip(group.items, group.judgements, group.targets, strict=True):
            assert judgement is not None
            expected = rules.EXCELLENT if told_nowhere[n].attributes["material"] == asked else rules.MISMATCH
            assert judgement.tier == int(target.argmax()) == expected
    subjects = np.array([g.judgements[0].tier for g in groups if g.judgements[0]])
    assert 0.4 < (subjects == rules.EXCELLENT).mean() < 0.6


def test_whom_the_chunk_speaks_of(told_nowhere: list[Product], groups: list[Group]) -> None:
    """A chunk about the subject states its value and is to be adopted for it alone; all kinds of chunk occur."""
    kinds = set()
    for group in groups:
        assert group.fact is not None
        uses = [context_use(group, n, []) for n in group.items]
        told = set(group.fact.subjects)
        kinds.add(len(told) if told else "other" if group.fact.chunk else "none")
        assert uses == [ContextUse.ADOPT if n in told else ContextUse.IGNORE for n in group.items]
        assert all(told_nowhere[n].attributes["material"] in group.fact.chunk for n in told)
    assert kinds == {1, 2, "other", "none"}


def test_siblings_are_mostly_unlike(told_nowhere: list[Product], groups: list[Group]) -> None:
    """Most siblings have another value than the subject: reading a chunk for the wrong item shows as an error."""
    unlike = [len({told_nowhere[n].attributes["material"] for n in group.items}) == 2 for group in groups]
    assert 0.75 < np.mean(unlike) < 0.99


def test_equal_seeds(told_nowhere: list[Product], groups: list[Group]) -> None:
    """Equal seeds give equal groups, other seeds others."""
    maker = FactMaker(told_nowhere, QueryMaker(told_nowhere))
    again = maker.make(300, 1)
    assert [(g.query, g.items, g.fact) for g in again] == [(g.query, g.items, g.fact) for g in groups]
    assert [g.items for g in maker.make(300, 2)] != [g.items for g in groups]


def test_a_catalogue_without_attributes(stock: list[Product]) -> None:
    """Nothing to ask for gives no groups, and no endless search."""
    bare = [replace(p, attributes={}) for p in stock]
    assert FactMaker(bare, QueryMaker(bare)).make(5, 1) == []


@pytest.mark.parametrize("seed", range(24))
def test_statements(told_nowhere: list[Product], seed: int) -> None:
    """Every wording names the product, the attribute and its value."""
    product = told_nowhere[0]
    text = statement(product, "material", random.Random(seed))
    assert "material" in text
    assert product.attributes["material"] in text
    assert product.title in text or product.name in text


def test_prompts_withhold_the_fact(told_nowhere: list[Product], cards: list[Card], groups: list[Group]) -> None:
    """In what the model reads, the asked value stands in the query and the chunk, never in the item's own fields."""
    manifest = load_manifest(SHIPPED)
    tokenizer = FieldTokenizer(SHIPPED)
    writer = ExampleWriter(manifest, tokenizer, PromptWriter(manifest, tokenizer), told_nowhere, cards)
    silent = [g for g in groups if g.fact is not None and not g.fact.chunk][:8]
    batch = writer.write(silent, 1, rationales=False).batch
    suffixes = tokenizer.decode(batch.ids[batch.prefixes[-1][1] :].tolist())
    first, *others = suffixes.split("[unused6]")  # what follows the mark is the query, up to the answer
    items = " ".join([first, *(part.rsplit("[unused7]", 1)[-1] for part in others)])
    assert not set(MATERIALS) & set(words(items))
