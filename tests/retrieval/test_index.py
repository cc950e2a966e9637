"""The vector index, against an exact scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import faiss
import numpy as np
import pytest

from retrieval.errors import SnapshotError
from retrieval.index import FLAT_UNTIL, build_index, nearest, open_index, write_index

if TYPE_CHECKING:
    from pathlib import Path


def unit_vectors(count: int, seed: int = 0) -> np.ndarray:
    """Clustered, as vectors of texts are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(200, 32))
    vectors = centres[rng.integers(200, size=count)] + 0.4 * rng.normal(size=(count, 32))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("count", [1, 50, FLAT_UNTIL + 1000])
def test_the_best_rows_are_those_of_an_exact_scan(tmp_path: Path, count: int) -> None:
    """Small indexes are exact; large ones find at least 95 % of the 16 best, after a trip to disk."""
    vectors = unit_vectors(count)
    write_index(build_index(vectors), tmp_path / "index")
    index = open_index(tmp_path / "index", rows=count, dimension=32)
    found = 0
    queries = unit_vectors(40, seed=1)
    for query in queries:
        scores, rows = nearest(index, query, 16)
        exact = np.argsort(-(vectors @ query))[:16]
        found += len(set(rows.tolist()) & set(exact.tolist()))
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert found >= (1.0 if count <= FLAT_UNTIL else 0.95) * len(queries) * min(count, 16)


def test_a_large_index_is_smaller_than_its_vectors(tmp_path: Path) -> None:
    """Beyond the bound a component takes one byte."""
    vectors = unit_vectors(FLAT_UNTIL + 1000)
    write_index(build_index(vectors), tmp_path / "index")
    assert (tmp_path / "index").stat().st_size < 0.5 * vectors.nbytes


def test_an_index_of_another_size_is_refused(tmp_path: Path) -> None:
    """What the manifest says has to be in the file."""
    write_index(build_index(unit_vectors(10)), tmp_path / "index")
    with pytest.raises(SnapshotError, match="holds 10 x 32, the manifest says 11 x 32"):
        open_index(tmp_path / "index", rows=11, dimension=32)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    """FAISS' own error becomes one that names the file."""
    (tmp_path / "index").write_bytes(b"nothing that FAISS knows")
    with pytest.raises(SnapshotError, match="is not a FAISS index"):
        open_index(tmp_path / "index", rows=1, dimension=1)


def test_inner_product_is_the_metric() -> None:
    """Scores are cosines of unit vectors."""
    assert build_index(unit_vectors(3)).metric_type == faiss.METRIC_INNER_PRODUCT
