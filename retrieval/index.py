"""The vector index: which FAISS index for how many vectors, how it is written, opened and asked for one query.

Small knowledge is searched exactly; large knowledge by a graph (HNSW). The bound and the parameters are measured
(bench/retrieval.py, docs/knowledge.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import faiss
import numpy as np

from retrieval.errors import SnapshotError

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval.embedding import Vectors

FLAT_UNTIL: Final = 8192  # vectors; an exact scan of these takes as long as a graph walk over 100,000
LINKS: Final = 32
BUILD_BREADTH: Final = 80
SEARCH_BREADTH: Final = 64


def build_index(vectors: Vectors) -> faiss.Index:
    """Index of N vectors, float32 [N, D], by inner product. Ids are row numbers."""
    dimension = vectors.shape[1]
    if len(vectors) <= FLAT_UNTIL:
        index = faiss.IndexFlatIP(dimension)
    else:
        index = faiss.IndexHNSWFlat(dimension, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILD_BREADTH
        index.hnsw.efSearch = SEARCH_BREADTH
    index.add(np.ascontiguousarray(vectors))
    return index


def write_index(index: faiss.Index, path: Path) -> None:
    """Write an index file."""
    faiss.write_index(index, str(path))


def open_index(path: Path, *, rows: int, dimension: int) -> faiss.Index:
    """Open an index by memory map and check that it is the one the manifest describes.

    Raises:
        SnapshotError: not an index, or of another size; names the file.
    """
    try:
        # IO_FLAG_MMAP_IFC maps the arrays; plain IO_FLAG_MMAP reads them per query and is ten times slower.
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise SnapshotError(f"{path} is not a FAISS index that this version can read: {error}") from error
    if index.ntotal != rows or index.d != dimension:
        raise SnapshotError(f"{path} holds {index.ntotal} x {index.d}, the manifest says {rows} x {dimension}")
    return index


def nearest(index: faiss.Index, vector: Vectors, count: int) -> tuple[Vectors, np.ndarray]:
    """Best rows for one vector [D]: scores and row numbers, best first; fewer than `count` when the index is smaller."""
    scores, rows = index.search(vector[None, :], min(count, index.ntotal))
    found = rows[0] >= 0
    return scores[0][found], rows[0][found]
