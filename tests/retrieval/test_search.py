"""One query, at most one chunk."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.embedding import SHIPPED, StaticEmbedder
from retrieval.errors import EmbedderError, SnapshotError
from retrieval.search import WEIGHTS, KnowledgeBase
from retrieval.snapshot import EMBEDDER, EMBEDDER_FILES, MANIFEST, OWN_FILES, file_entry, version_of


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("laptop", "type:notebook"),
        ("tn3170", "fits:tn-3170"),
        ("brother tn 2000 toner", "fits:tn-2000"),
        ("toner for hl-2030", "fits:tn-2000"),
        ("laser toner", "type:toner"),
        ("epson", "brand:epson"),
    ],
)
def test_the_right_chunk_answers(knowledge: KnowledgeBase, query: str, expected: str) -> None:
    """By meaning, by model number in any spelling, by device, by brand."""
    hit = knowledge.search(query)
    assert hit is not None
    assert hit.chunk_id == expected


@pytest.mark.parametrize("query", ["zebra stripes", "banana bread recipe", "", "  ", "\x00", "😀"])
def test_below_the_gate_there_is_none(knowledge: KnowledgeBase, query: str) -> None:
    """A query about something else, or about nothing, gets no chunk."""
    assert knowledge.search(query) is None


def test_a_hit_says_where_it_comes_from(knowledge: KnowledgeBase) -> None:
    """Text, source, url and score are the chunk's own."""
    hit = knowledge.search("brother tn-3170")
    assert hit is not None
    assert hit.text == "Brother toner cartridge TN-3170 fits Brother HL-5240, MFC-8460N."
    assert (hit.source, hit.url) == ("cards", "https://example.com/tn-3170")
    assert 0.5 <= hit.score <= 1


def test_the_steps_of_a_search_are_timed(knowledge: KnowledgeBase) -> None:
    """Embedding and searching can be told apart, and the snapshot knows its age."""
    timings: dict[str, float] = {}
    knowledge.search("toner", timings)
    assert timings.keys() == {"embed", "search"}
    assert all(milliseconds >= 0 for milliseconds in timings.values())
    assert 0 < knowledge.built_at <= time.time()


def test_the_gate_is_the_caller_s_or_the_snapshot_s(snapshot: Path) -> None:
    """A score equal to tau passes, any above does not."""
    best = KnowledgeBase.open(snapshot).best("toner")
    assert best is not None
    assert KnowledgeBase.open(snapshot).tau == 0.5
    assert KnowledgeBase.open(snapshot, tau=best.score).search("toner") == best
    assert KnowledgeBase.open(snapshot, tau=float(np.nextafter(best.score, 2))).search("toner") is None


@given(st.text(max_size=200))
def test_any_query_is_answered_within_bounds(knowledge: KnowledgeBase, query: str) -> None:
    """No text breaks the search; scores are in [-1, 1]."""
    best = knowledge.best(query)
    assert best is None or -1 <= best.score <= 1


def test_the_score_is_the_weighted_mean_of_its_parts(knowledge: KnowledgeBase) -> None:
    """Against a plain computation for a query that shares every word with a one-word title."""
    embedder = StaticEmbedder(SHIPPED)
    best = knowledge.best("epson")
    assert best is not None
    cosine = float(embedder.embed(["epson"])[0] @ embedder.embed([best.text])[0])
    expected = float(WEIGHTS @ np.array([cosine, 1, 1, 1]))
    assert best.score == pytest.approx(expected, abs=1e-4)


def test_a_long_query_costs_no_more_than_its_first_words(knowledge: KnowledgeBase) -> None:
    """A hundred thousand characters are answered like any query."""
    assert knowledge.best("toner " * 20_000) is not None


def test_an_embedder_that_is_not_the_builder_s_is_refused(copy: Path) -> None:
    """Even with every hash in order: vectors of another embedder would give wrong neighbours, silently."""
    config = json.loads((copy / EMBEDDER / "embedder.json").read_text())
    (copy / EMBEDDER / "embedder.json").write_text(json.dumps({**config, "name": "another"}))
    manifest = json.loads((copy / MANIFEST).read_text())
    files = {name: file_entry(copy / name) for name in (*OWN_FILES, *EMBEDDER_FILES)}
    manifest["files"] = {name: entry.model_dump() for name, entry in files.items()}
    manifest["version"] = version_of(files, manifest["embedder"])
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(EmbedderError, match="build the index again"):
        KnowledgeBase.open(copy)


def test_a_removed_snapshot_is_still_read(snapshot: Path, tmp_path: Path) -> None:
    """Deleting the files under an open snapshot takes nothing from its readers."""
    folder = Path(shutil.copytree(snapshot, tmp_path / "copy"))
    knowledge = KnowledgeBase.open(folder)
    shutil.rmtree(folder)
    assert knowledge.search("laptop") is not None
    with pytest.raises(SnapshotError):
        KnowledgeBase.open(folder)
