"""Groups whose deciding fact only a chunk tells."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.manifest import SHIPPED, load_manifest
from models.prompt import PromptWriter
from models.rationale import CategoryVerdict, ContextUse
from models.tokenizer import FieldTokenizer
from models.train import rules
from models.train.examples import ExampleWriter, context_use
from models.train.facts import FACT_ITEMS, WITHHELD, FactMaker, followed, shares, statement, told_answers
from models.train.pairs import Fact, Group, rule_target
from models.train.queries import Query, QueryMaker, words

if TYPE_CHECKING:
    from models.catalogue import Product
    from models.train.pairs import Card

MATERIALS = ("steel", "wood", "glass")


@pytest.fixture(scope="module")
def told_nowhere(stock: list[Product]) -> list[Product]:
    """The stock, with a material that few titles name; of every fifth, nobody knows it."""
    made = list(stock)
    for n, p in enumerate(stock):
        material = MATERIALS[n % 3]
        if n % 5:
            title = f"{p.title} {material}" if n % 11 == 0 else p.title
            made[n] = replace(p, title=title, attributes={**p.attributes, "material": material})
    return made


@pytest.fixture(scope="module")
def groups(told_nowhere: list[Product]) -> list[Group]:
    return FactMaker(told_nowhere, QueryMaker(told_nowhere)).make(2000, 1)


def tiers(group: Group) -> list[int]:
    """The rules' tiers of the two items whose material is withheld."""
    return [j.tier for j in group.judgements if j is not None][:WITHHELD]


def test_items_do_not_tell(told_nowhere: list[Product], groups: list[Group]) -> None:
    """Only attributes that neither title nor description tell are asked for, and every group withholds what it asks."""
    assert len(groups) == 2000
    for group in groups:
        assert len(set(group.items)) == FACT_ITEMS
        assert group.fact is not None
        (asked,) = group.query.values
        assert group.fact.name == asked[0] == "material"
        assert all(asked[1] not in words(told_nowhere[n].title) for n in group.items[:WITHHELD])


def test_the_third_item_needs_no_chunk(told_nowhere: list[Product], groups: list[Group]) -> None:
    """The third item tells the value in its title, or is of another type, at times with the asked value."""
    kinds = set()
    for group in groups:
        product, judgement = told_nowhere[group.items[-1]], group.judgements[-1]
        assert group.fact is not None
        assert judgement is not None
        assert group.items[-1] not in group.fact.subjects
        assert group.targets[-1].tolist() == rule_target(judgement.tier).tolist()
        other = product.category not in group.query.categories
        asked = group.query.values[0][1]
        kinds.add((other, product.attributes.get("material") == asked))
        assert other or set(MATERIALS) & set(words(product.title))
        assert judgement.tier in ((rules.MISMATCH, rules.IRRELEVANT) if other else (rules.EXCELLENT, rules.MISMATCH))
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}


def test_a_catalogue_of_one_type(told_nowhere: list[Product]) -> None:
    """Where nothing is of another type, the third item tells the value itself, and there is no endless search."""
    keyboards = [p for p in told_nowhere if p.category == "keyboard"]
    named = {n for g in FactMaker(keyboards, QueryMaker(keyboards)).make(20, 1) for n in g.items[WITHHELD:]}
    assert named
    assert all(set(MATERIALS) & set(words(keyboards[n].title)) for n in named)


def test_tiers_are_what_is_true(told_nowhere: list[Product], groups: list[Group]) -> None:
    """Tiers say what is true, whatever the chunk says; an item whose value nobody knows is Related."""
    of = {True: rules.EXCELLENT, False: rules.MISMATCH, None: rules.RELATED}
    for group in groups:
        asked = group.query.values[0][1]
        values = [told_nowhere[n].attributes.get("material") for n in group.items[:WITHHELD]]
        expected = [of[None if value is None else value == asked] for value in values]
        assert tiers(group) == expected
        assert group.targets[:WITHHELD].argmax(-1).tolist() == expected
        np.testing.assert_allclose(group.targets.sum(-1), 1, atol=1e-6)
    silent = np.mean([rules.RELATED in tiers(g) for g in groups])
    assert 0.05 < silent < 0.2


def test_whom_the_chunk_speaks_of(told_nowhere: list[Product], groups: list[Group]) -> None:
    """A chunk about an item states its value and is to be adopted for it alone; all kinds of chunk occur."""
    kinds = set()
    for group in groups:
        assert group.fact is not None
        uses = [context_use(group, n, []) for n in group.items]
        told = set(group.fact.subjects)
        misleads = group.fact.claim is not None  # tier 0 is a claim too
        kinds.add(len(told) if told else "stranger" if misleads else "other" if group.fact.chunk else "none")
        assert uses == [ContextUse.ADOPT if n in told else ContextUse.IGNORE for n in group.items]
        assert all(told_nowhere[n].attributes["material"] in group.fact.chunk for n in told)
        if len(told) == 1:
            assert group.fact.claim == tiers(group)[group.items.index(*told)]
    assert kinds == {1, 2, "stranger", "other", "none"}


def test_what_others_have_says_nothing(groups: list[Group]) -> None:
    """What a chunk states of one product tells neither that another has it nor that it has not."""
    both = np.array([tiers(g) for g in groups if rules.RELATED not in tiers(g)]) == rules.EXCELLENT
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.08
    assert (abs(both.mean(0) - 0.5) < 0.06).all()
    untold = [
        (group.fact.claim == rules.EXCELLENT, tier == rules.EXCELLENT)
        for group in groups
        for n, tier in zip(group.items[:WITHHELD], tiers(group), strict=True)
        if group.fact and group.fact.claim is not None and n not in group.fact.subjects and tier != rules.RELATED
    ]
    assert len(untold) > 500
    assert abs(np.corrcoef(np.array(untold).T)[0, 1]) < 0.1


def test_reading_and_following() -> None:
    """Told pairs count as read when they are right, untold ones as followed when they get what the chunk claims.

    The third item, which nobody could mislead, is in neither.
    """
    query = Query("steel box", "attribute_type", frozenset({"box"}), values=(("material", "steel"),))
    judged = tuple(rules.Judgement(tier, CategoryVerdict.MATCH, ()) for tier in (0, 2, 3))
    targets = np.stack([rule_target(j.tier) for j in judged])
    fact = Fact("material", "a box of steel", (7,), claim=rules.EXCELLENT)
    told = Group(query, (7, 8, 9), targets, judged, None, card_helps=False, fact=fact)
    plain = replace(told, fact=None)
    assert told_answers([plain, told], [0, 0, 0, 0, 2, 3]) == [True]
    assert told_answers([told], [2, 2, 0]) == [False]
    assert followed([plain, told], [0, 0, 0, 0, 2, 0]) == [False]
    assert followed([told], [0, 0, 3]) == [True]
    assert shares(read=[True, False], followed=[]) == {"read": 0.5}


def test_equal_seeds(told_nowhere: list[Product], groups: list[Group]) -> None:
    """Equal seeds give equal groups, other seeds others."""
    maker = FactMaker(told_nowhere, QueryMaker(told_nowhere))
    again = maker.make(2000, 1)
    assert [(g.query, g.items, g.fact) for g in again] == [(g.query, g.items, g.fact) for g in groups]
    assert [g.items for g in maker.make(2000, 2)] != [g.items for g in groups]


def test_a_catalogue_without_attributes(stock: list[Product]) -> None:
    """Nothing to ask for gives no groups, and no endless search."""
    bare = [replace(p, attributes={}) for p in stock]
    assert FactMaker(bare, QueryMaker(bare)).make(5, 1) == []


@pytest.mark.parametrize("seed", range(24))
def test_statements(told_nowhere: list[Product], seed: int) -> None:
    """Every wording names the product, the attribute and its value."""
    product = told_nowhere[1]
    text = statement(product, "material", random.Random(seed))
    assert "material" in text
    assert product.attributes["material"] in text
    assert product.title in text or product.name in text


def withheld_alone(group: Group) -> Group:
    """The group without its third item, which may tell."""
    kept = group.items[:WITHHELD]
    return replace(group, items=kept, targets=group.targets[:WITHHELD], judgements=group.judgements[:WITHHELD])


def test_prompts_withhold_the_fact(told_nowhere: list[Product], cards: list[Card], groups: list[Group]) -> None:
    """In what the model reads, the asked value stands in the query and the chunk, never in the item's own fields."""
    manifest = load_manifest(SHIPPED)
    tokenizer = FieldTokenizer(SHIPPED)
    writer = ExampleWriter(manifest, tokenizer, PromptWriter(manifest, tokenizer), told_nowhere, cards)
    silent = [withheld_alone(g) for g in groups if g.fact is not None and not g.fact.chunk][:8]
    batch = writer.write(silent, 1, rationales=False).batch
    suffixes = tokenizer.decode(batch.ids[batch.prefixes[-1][1] :].tolist())
    first, *others = suffixes.split("[unused6]")  # what follows the mark is the query, up to the answer
    items = " ".join([first, *(part.rsplit("[unused7]", 1)[-1] for part in others)])
    assert not set(MATERIALS) & set(words(items))
