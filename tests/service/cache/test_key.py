"""Keys."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.manifest import CanaryItem, Manifest, load_manifest
from models.prompt import Item
from service.cache.key import KeyMaker, framed

if TYPE_CHECKING:
    from pathlib import Path

parts = st.lists(st.text("ab:;1é\x00", max_size=6), max_size=5)
OTHERS: list[dict[str, Any]] = [{"query": "other"}, {"chunk": "other"}, {"item": CanaryItem(title="other")}]
ITEM = Item("title", "brand", "category", "attributes", "description")


@pytest.fixture(scope="module")
def manifest(checkpoint: Path) -> Manifest:
    """The tiny checkpoint's."""
    return load_manifest(checkpoint)


def asking(manifest: Manifest, **fields: Any) -> Manifest:
    """A manifest whose first canary is another one."""
    first, *rest = manifest.canaries
    return manifest.model_copy(update={"canaries": (first.model_copy(update=fields), *rest)})


@given(parts, parts)
def test_different_parts_are_never_written_the_same_way(one: list[str], other: list[str]) -> None:
    """Text cannot move from one part into the next unseen."""
    assert (framed(one) == framed(other)) == (one == other)


def test_any_text_can_be_part_of_a_key() -> None:
    """Lone surrogates too; a parser that lets them through must not break the cache."""
    assert framed(["\ud800"]) != framed(["\udfff"])


def test_everything_that_can_move_a_score_is_in_the_key(manifest: Manifest) -> None:
    """Another tenant, judge, chunk basis, query or field of the item is another key; two that differ never meet."""
    fields = ("title", "brand", "category", "attributes", "description")
    items = [ITEM, *(Item(**{**dict.fromkeys(fields, ""), "title": "t", name: "x"}) for name in fields)]
    swapped = manifest.model_copy(update={"tiers": (*manifest.tiers[1::-1], *manifest.tiers[2:])})
    template = manifest.prompt.model_copy(update={"budgets": {**manifest.prompt.budgets, "title": 9}})
    judges = [
        KeyMaker(manifest, "onnx-int8"),
        KeyMaker(manifest, "onnx-float32"),
        KeyMaker(manifest.model_copy(update={"name": "other"}), "onnx-int8"),
        KeyMaker(manifest.model_copy(update={"files": {"weights": "0"}}), "onnx-int8"),
        KeyMaker(manifest.model_copy(update={"prompt": template, "prompt_hash": template.hash}), "onnx-int8"),
        KeyMaker(swapped, "onnx-int8"),
        *(KeyMaker(asking(manifest, **other), "onnx-int8") for other in OTHERS),
        KeyMaker(manifest.model_copy(update={"canaries": ()}), "onnx-int8"),
    ]
    requests = [
        ("a", ("none",), "q"),
        ("b", ("none",), "q"),
        ("a", ("none",), "r"),
        ("a", ("caller", "q"), "q"),
        ("a", ("caller", "none"), "q"),
        ("a", ("index", "1", "0.5"), "q"),
        ("a", ("index", "1", "0.6"), "q"),
        ("a", ("index", "2", "0.5"), "q"),
        ("aq", ("none",), ""),
    ]
    keys = [judge.keys(*requests[0], items) for judge in judges]
    keys += [judges[0].keys(*request, items) for request in requests[1:]]
    digests = [digest for made in keys for digest in (made.shared, *made.items)]
    assert all(one != other for one, other in combinations(digests, 2))


def test_what_moves_no_score_is_not_in_the_key(manifest: Manifest) -> None:
    """Log-probabilities are kept raw: another beta or temperature finds them again, and so does another id.

    What canaries expect moves none; what they ask moves those of the engine whose weights are evened out by it.
    """
    changed = manifest.model_copy(update={"beta": 0.9, "temperature": 2.0, "figures": {"f1": 1}})
    expecting = asking(manifest, tier="3-Related", probabilities=(0.1, 0.7, 0.1, 0.1))
    for engine, manifests in (
        ("onnx-int8", [manifest, changed, expecting]),
        ("onnx-float32", [manifest, changed, expecting, *(asking(manifest, **other) for other in OTHERS)]),
    ):
        one, *others = [KeyMaker(m, engine).keys("t", ("none",), "q", [ITEM, ITEM]) for m in manifests]
        assert all(other == one for other in others)
    assert one.items[0] == one.items[1]
