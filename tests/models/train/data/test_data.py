"""Training data: rows, checks, splits, mining, suspects and context probes."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.catalogue import Product
from models.errors import DataError
from models.evaluation.probes import VARIANTS
from models.tokenizer import FieldTokenizer
from models.train.data.check import check
from models.train.data.mining import Evidence, MiningConfig, mine, read_clicks
from models.train.data.probes import probes
from models.train.data.relabel import suspects
from models.train.data.schema import Row, parse_row, read_training_rows, write_training_rows
from models.train.data.split import split

if TYPE_CHECKING:
    from pathlib import Path

    from models.manifest import Manifest

PAIR: dict[str, Any] = {"query": "black toner", "title": "Acme toner black", "tier": "4"}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(**fields: Any) -> Row:
    return parse_row("here", {**PAIR, **fields})


def test_flat_and_nested() -> None:
    """The item's fields may lie flat in the row or under `item`; attributes may be a mapping."""
    flat = row(attributes={"colour": "black", "pages": 3000.0})
    nested = parse_row("here", {"query": "black toner", "tier": "4", "item": flat.item.model_dump()})
    assert flat == nested
    assert flat.item.attributes == "colour black, pages 3000"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"titel": "x"}, "unknown field 'titel'"),
        ({"title": ""}, "item.title"),
        ({"verdicts": {"category": "perhaps"}}, "verdicts.category"),
        ({"verdicts": {"attributes": {"a,b": "ok"}}}, "comma"),
        ({"probabilities": [0.5, 0.1]}, "add up to 0.600"),
    ],
)
def test_bad_row(change: dict[str, Any], told: str) -> None:
    """A bad row is refused with its place, the field and what is wrong."""
    with pytest.raises(DataError, match=told) as caught:
        parse_row("rows.jsonl: line 7", {**PAIR, **change})
    assert str(caught.value).startswith("rows.jsonl: line 7: ")


def test_read_names_the_line(tmp_path: Path, manifest: Manifest) -> None:
    """A tier that the checkpoint lacks, or none, is refused with its line."""
    path = written(tmp_path / "a.jsonl", PAIR, {**PAIR, "tier": "9"})
    with pytest.raises(DataError, match=r"a\.jsonl: line 2: no tier '9'"):
        read_training_rows(path, manifest.tiers)
    path = written(tmp_path / "b.jsonl", {"query": "q", "title": "t"})
    with pytest.raises(DataError, match="line 1: no tier"):
        read_training_rows(path, manifest.tiers)
    assert len(read_training_rows(path, manifest.tiers, labelled=False)) == 1


def test_round_trip(tmp_path: Path, manifest: Manifest) -> None:
    """What is written reads back as it was."""
    rows = [row(context="c", context_use="adopt", verdicts={"category": "match", "attributes": {"brand": "ok"}})]
    write_training_rows(rows, tmp_path / "a.jsonl")
    assert read_training_rows(tmp_path / "a.jsonl", manifest.tiers) == rows


def test_clean(tmp_path: Path, manifest: Manifest, wordpiece: Path) -> None:
    """Good data has no fatal finding; balance and lengths are reported in the checkpoint's terms."""
    path = written(tmp_path / "a.jsonl", PAIR, {**PAIR, "query": "mouse", "title": "mouse " * 40, "tier": "1"})
    report = check([path], manifest=manifest, tokenizer=FieldTokenizer(wordpiece))
    assert not report.fatal
    assert report.rows == {"a.jsonl": 2}
    assert report.tiers == {"4-Excellent": 1, "3-Related": 0, "2-Mismatch": 0, "1-Irrelevant": 1}
    assert report.variation == 1.0
    assert report.unit == "tokens"
    assert report.lengths["title"].cut == 0.5
    assert report.counts == {"missing tier": 2}


def test_findings(tmp_path: Path, manifest: Manifest) -> None:
    """A bad row, a duplicate, a disagreement and an unknown tier are each found, with their lines."""
    path = written(
        tmp_path / "a.jsonl",
        {**PAIR, "rater": "ann"},
        {**PAIR, "rater": "ann"},
        {**PAIR, "rater": "bob", "tier": "2"},
        {**PAIR, "rater": "cid"},
        {**PAIR, "tier": "7", "query": "x"},
        {"query": "no title"},
    )
    report = check([path], manifest=manifest)
    kinds = {(f.kind, f.place): f for f in report.findings}
    assert ("duplicate", "a.jsonl: line 2") in kinds
    assert "bob" in kinds["disagreement", "a.jsonl: line 3"].message
    assert ("unknown tier", "a.jsonl: line 5") in kinds
    assert ("bad row", "a.jsonl: line 6") in kinds
    assert report.counts["duplicate"] == 1  # another rater who agrees is no duplicate
    assert report.fatal


def test_leaks(tmp_path: Path) -> None:
    """A near-duplicate query on the other side, or in another cluster, is a leak."""
    one = written(tmp_path / "train.jsonl", PAIR)
    other = written(tmp_path / "valid.jsonl", {**PAIR, "query": "Toners, black"})
    assert check([one, other]).counts["leak"] == 1
    torn = written(tmp_path / "torn.jsonl", {**PAIR, "cluster": "1"}, {**PAIR, "query": "toner black", "cluster": "2"})
    assert check([torn]).counts["torn cluster"] == 1
    assert check([torn]).fatal


@given(st.lists(st.integers(0, 30), min_size=12, max_size=80).filter(lambda c: len(set(c)) > 5), st.integers(0, 99))
def test_split(clusters: list[int], seed: int) -> None:
    """Sides share no cluster, lose no row, and depend on the seed alone."""
    rows = [row(cluster=str(c)) for c in clusters]
    shares = {"train": 0.6, "valid": 0.2, "test": 0.2}
    sides = split(rows, shares, seed)
    assert sorted(n for numbers in sides.values() for n in numbers) == list(range(len(rows)))
    homes = [{clusters[n] for n in numbers} for numbers in sides.values()]
    assert sum(map(len, homes)) == len(set().union(*homes))
    assert split(rows, shares, seed) == sides


def test_split_refusals() -> None:
    """Shares that do not add up, and too few clusters, are refused."""
    with pytest.raises(DataError, match="add up to 1"):
        split([row()], {"train": 0.5}, 1)
    with pytest.raises(DataError, match="1 clusters are too few"):
        split([row()], {"train": 0.5, "valid": 0.5}, 1)


CLICKS = [
    {"query": "acme toner", "product_id": "0-0-0-0", "clicks": 5, "impressions": 10},
    {"query": "acme toner", "product_id": "0-0-0-1", "clicks": 0, "impressions": 40},
    {"query": "acme toner", "product_id": "0-0-0-2", "clicks": 0, "impressions": 3},
    {"query": "nothing", "product_id": "0-1-0-0", "clicks": 0, "impressions": 99},
]


def test_clicks(tmp_path: Path) -> None:
    """Impression rows add up to counts; impossible counts are refused with their line."""
    path = written(tmp_path / "c.jsonl", *({"query": "q", "product_id": "p", "clicked": c} for c in (1, 0, 1)))
    assert read_clicks(path) == {"q": {"p": Evidence(3, 2)}}
    bad = written(tmp_path / "d.jsonl", {"query": "q", "product_id": "p", "clicks": 3, "impressions": 2})
    with pytest.raises(DataError, match="line 1: 3 clicks in 2"):
        read_clicks(bad)


def test_mining(tmp_path: Path, stock: list[Product]) -> None:
    """Strong evidence alone gives a tier; near negatives share words but no category; strangers share neither."""
    products = {p.id: p for p in stock}
    log = read_clicks(written(tmp_path / "c.jsonl", *CLICKS))
    rows = list(mine(products, log, MiningConfig()))
    assert Counter(r.source for r in rows) == {"clicked": 1, "skipped": 1, "near": 4, "random": 1}
    assert {r.query for r in rows} == {"acme toner"}
    for mined in rows:
        category = products[mined.item.id].category
        if mined.source == "near":
            assert category != "toner cartridge"
            assert "acme" in mined.item.title.lower()
        if mined.source == "random":
            assert "acme" not in mined.item.title.lower()


def test_suspects() -> None:
    """Confident disagreement, surest first; agreement and doubt are left alone."""
    p = np.array([[0.9, 0.1, 0], [0.95, 0, 0.05], [0.4, 0.6, 0], [0.92, 0.08, 0]], dtype=np.float32)
    found = suspects(p, [1, 2, 0, 0], confidence=0.8)
    assert [(s.row, s.given, s.proposed) for s in found] == [(1, 2, 0), (0, 1, 0)]


@pytest.fixture
def plain(stock: list[Product]) -> list[Product]:
    """Products whose titles tell no attribute."""
    return [
        Product(p.id, f"{p.brand} {p.name} {p.category}", p.brand, p.category, p.attributes, p.description, p.name)
        for p in stock
    ]


def test_probes(plain: list[Product]) -> None:
    """The fact is nowhere in the item, the right chunk holds it, the misleading one would turn the verdict."""
    rows = probes(plain, 20, seed=3)
    assert [r.kind for r in rows] == list(VARIANTS) * 20
    assert Counter(r.tier for r in rows) == {"4": 40, "2": 40}
    by_id = {p.id: p for p in plain}
    for start in range(0, len(rows), 4):
        none, right, _useless, misleading = rows[start : start + 4]
        assert none.verdicts is not None
        (name,) = none.verdicts.attributes
        true = by_id[none.item.id].attributes[name]
        assert name not in none.item.attributes
        assert right.context is not None
        assert misleading.context is not None
        assert right.context.endswith(f"{name} {true}.")
        assert not misleading.context.endswith(f"{name} {true}.")
        assert len({r.group for r in rows[start : start + 4]}) == 1
    assert len({r.item.id for r in rows}) == 20


def test_probes_to_learn(plain: list[Product]) -> None:
    """To learn from, another product's chunk tells the truth of that product, which is the asked one's by a coin."""
    alike: dict[str, list[Product]] = {}
    for product in plain:
        alike.setdefault(product.title, []).append(product)
    by_id = {p.id: p for p in plain}
    agree = Counter[str]()
    for row in probes(plain, 200, seed=3, to_learn=True):
        if row.kind != "misleading":
            continue
        assert row.context is not None
        assert row.verdicts is not None
        (name,) = row.verdicts.attributes
        product = by_id[str(row.item.id)]
        title, _, told = row.context.partition(f": {name} ")
        assert title != product.title
        assert any(told == f"{p.attributes[name]}." for p in alike[title])
        agree[str(row.tier)] += told == f"{product.attributes[name]}."
    assert set(agree) == {"4", "2"}
    assert all(30 < count < 70 for count in agree.values()), "of 100 each"
