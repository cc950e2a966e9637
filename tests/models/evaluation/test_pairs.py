"""Tests of the readers of judgements and labelled pairs."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.catalogue import Product
from models.errors import DataError
from models.evaluation.attack_run import IRRELEVANT_PAIRS
from models.evaluation.pairs import LabelledPair, Sample, read_judgements, read_labelled
from models.manifest import Manifest
from models.prompt import Item

PRODUCTS = {"1": Product("1", "Phone", brand="Acme"), "2": Product("2", "Case")}


def judgements(folder: Path, *lines: str, header: str = "query,product_id,rating,cluster") -> Path:
    """A file of judgements."""
    path = folder / "judgements.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def test_judgements_become_pairs(tmp_path: Path) -> None:
    """Grade 3 is the best tier; the item's text is the catalogue's; a query without a cluster is its own."""
    path = judgements(tmp_path, "phone,1,3,4", "phone,2,0.0,4", "case,2,2,")
    assert read_judgements(path, PRODUCTS, 4) == [
        LabelledPair("phone", "1", Item("Phone", "Acme"), 0, "4"),
        LabelledPair("phone", "2", Item("Case"), 3, "4"),
        LabelledPair("case", "2", Item("Case"), 1, "case"),
    ]


def test_judgements_may_bring_a_chunk(tmp_path: Path) -> None:
    """A context column goes into the pair."""
    path = judgements(tmp_path, "phone,1,3,Phones call", header="query,item_id,grade,context")
    assert read_judgements(path, PRODUCTS, 4)[0].chunk == "Phones call"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("phone,1,4,1", "line 2: the grade '4' is not a whole number from 0"),
        ("phone,1,-1,1", "grade '-1'"),
        ("phone,1,2.5,1", "grade '2.5'"),
        ("phone,1,good,1", "grade 'good'"),
        ("phone,1,nan,1", "grade 'nan'"),
        ("phone,1,,1", "no rating or grade"),
        (",1,3,1", "no query"),
        ("phone,,3,1", "no product_id or item_id"),
        ("phone,7,3,1", "line 2: the catalogue has no product '7'"),
        ("phone,1,3,1\nphone,1,2,1", "line 3: the pair .* is judged twice"),
    ],
)
def test_bad_judgements_are_named(tmp_path: Path, line: str, told: str) -> None:
    """Each message names the line and what is wrong."""
    with pytest.raises(DataError, match=told):
        read_judgements(judgements(tmp_path, line), PRODUCTS, 4)


def test_no_judgements_is_an_error(tmp_path: Path) -> None:
    """An empty file measures nothing."""
    with pytest.raises(DataError, match="no judgements"):
        read_judgements(judgements(tmp_path), PRODUCTS, 4)


def labelled(folder: Path, *rows: object) -> Path:
    """A file of labelled pairs."""
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_labelled_pairs_flat_and_nested(tmp_path: Path, manifest: Manifest) -> None:
    """Item fields lie in the row or under `item`; a tier goes by name or label; attributes by text or mapping."""
    path = labelled(
        tmp_path,
        {"query": "phone", "title": "Phone", "brand": "Acme", "tier": "4-Excellent", "chunk": "c", "id": 5},
        {"query": "phone", "item": {"title": "Case", "attributes": {"colour": "red"}}, "tier": "1", "cluster": 3},
    )
    first, second = read_labelled(path, manifest.tiers)
    assert first == LabelledPair("phone", "5", Item("Phone", "Acme"), 0, "phone", "c")
    assert second.item == Item("Case", attributes="colour red")
    assert (second.tier, second.cluster, second.chunk) == (3, "3", None)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"query": "q", "title": "t", "tier": "Superb"}, "no tier 'Superb'; the checkpoint's are 4-Excellent"),
        ({"query": "q", "title": "t"}, "line 1: no tier"),
        ({"query": "q", "tier": "4"}, "no title"),
        ({"query": "q", "item": "Phone", "tier": "4"}, "item must be an object"),
    ],
)
def test_bad_labelled_pairs_are_named(tmp_path: Path, manifest: Manifest, row: object, told: str) -> None:
    """Each message names the line and what is wrong."""
    with pytest.raises(DataError, match=told):
        read_labelled(labelled(tmp_path, row), manifest.tiers)


def test_the_shipped_irrelevant_pairs_read(manifest: Manifest) -> None:
    """The pairs under attack come with the package, without a tier of their own, one per query."""
    pairs = read_labelled(IRRELEVANT_PAIRS, manifest.tiers, assume=3)
    assert len(pairs) >= 40
    assert {p.tier for p in pairs} == {3}
    assert all(not set(p.query.split()) & set(p.item.title.lower().split()) for p in pairs)


def test_a_sample_numbers_queries_and_clusters() -> None:
    """Arrays follow the pairs, in order of first appearance."""
    item = Item("x")
    pairs = [LabelledPair(q, "1", item, t, c) for q, t, c in (("b", 0, "y"), ("a", 3, "x"), ("b", 1, "y"))]
    sample = Sample.of(pairs, 4)
    np.testing.assert_array_equal(sample.queries, [0, 1, 0])
    np.testing.assert_array_equal(sample.clusters, [0, 1, 0])
    np.testing.assert_array_equal(sample.grades, [3, 0, 2])
    assert [list(rows) for rows in sample.rows_by_query()] == [[0, 2], [1]]
