"""Soft targets: the ordinal map, the rules' share, and candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.train import minilm, rules
from models.train.pairs import ITEMS, RULE_SHARE, PairMaker, rule_target
from models.train.queries import QueryMaker
from models.train.teacher import OrdinalMap, SentenceEncoder, WordIndex, fit_ordinal

if TYPE_CHECKING:
    from pathlib import Path

    from models.catalogue import Product
    from models.train.pairs import Card


def test_ordinal_map_by_hand() -> None:
    """With slope 1 and thresholds 2, 0, -2, evidence 0 gives 1 - sigmoid steps worked out by hand."""
    p = OrdinalMap(1.0, (2.0, 0.0, -2.0)).probabilities(np.zeros(1, np.float32))
    np.testing.assert_allclose(p, [[0.1192, 0.3808, 0.3808, 0.1192]], atol=1e-4)


def test_fit_recovers_the_order() -> None:
    """Fitted on tiers that follow from evidence, the map puts more mass on better tiers as evidence grows."""
    rng = np.random.default_rng(0)
    evidence = rng.uniform(0, 1, 800).astype(np.float32)
    tiers = np.digitize(-evidence + rng.normal(0, 0.05, 800), [-0.75, -0.5, -0.25])
    fitted = fit_ordinal(evidence, tiers, 4)
    p = fitted.probabilities(np.array([0.05, 0.4, 0.6, 0.95], np.float32))
    assert p.argmax(-1).tolist() == [3, 2, 1, 0]
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("tier", range(4))
def test_rule_target_is_a_distribution(tier: int) -> None:
    """Most mass on the tier, the rest on its neighbours."""
    target = rule_target(tier)
    assert target.sum() == pytest.approx(1)
    assert target.argmax() == tier


def test_coverage_knows_plurals(stock: list[Product]) -> None:
    """A query's plural is covered by an item's singular, and rare words weigh more than common ones."""
    index = WordIndex(stock)
    weights = index.weights("keyboards acme")
    assert index.coverage(weights, frozenset({"keyboard", "acme"})) == pytest.approx(1)
    assert weights["keyboards"] > weights["acme"]


def test_groups(stock: list[Product], cards: list[Card], tmp_path: Path) -> None:
    """Groups hold distinct items, soft targets that sum to one, and more mass on the rules' tier than chance."""
    made: list[str] = []
    maker = PairMaker(
        stock, cards, SentenceEncoder(minilm.encoder_folder()), lambda what, *_: made.append(what), tmp_path
    )
    queries = QueryMaker(stock, [("Acme Laser 5", "toner cartridge")]).make(48, 1)
    groups = maker.make(queries, 1)
    assert {"encode titles", "encode items", "encode queries", "choose items"} <= set(made)
    for query, group in zip(queries, groups, strict=True):
        assert group.query is query
        assert len(set(group.items)) == len(group.items) == ITEMS
        np.testing.assert_allclose(group.targets.sum(-1), 1, atol=1e-5)
        for target, judgement in zip(group.targets, group.judgements, strict=True):
            if judgement is not None:
                assert target[judgement.tier] >= RULE_SHARE * (1 - 0.06)
    assert any(group.card is not None and group.card_helps for group in groups)
    assert any(j is not None and j.tier == rules.MISMATCH for g in groups for j in g.judgements)
