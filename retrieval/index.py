"""The vector index: which FAISS index for how many vectors, how it is written, opened and asked for one query.

Small knowledge is searched exactly; large knowledge by inverted lists with one byte a component, which build a few
times faster than a graph (HNSW), take a fifth of its space and find more. Measured in docs/knowledge.md.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import faiss
import numpy as np

from retrieval.errors import SnapshotError

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval.embedding import Vectors

FLAT_UNTIL: Final = 8192  # vectors; an exact scan of these takes as long as a search of 100,000 by lists
LISTS_PER_ROOT: Final = 3  # lists for each square root of the number of vectors, rounded to a power of two
PROBES: Final = 64
ITERATIONS: Final = 10  # of k-means; more moves no figure


def build_index(vectors: Vectors) -> Any:
    """Index of N vectors, float32 [N, D], by inner product. Ids are row numbers."""
    dimension = vectors.shape[1]
    index: Any  # FAISS hands out a subclass with attributes of its own
    if len(vectors) <= FLAT_UNTIL:
        index = faiss.IndexFlatIP(dimension)
    else:
        lists = 2 ** round(math.log2(LISTS_PER_ROOT * math.sqrt(len(vectors))))
        index = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = ITERATIONS
        index.cp.min_points_per_centroid = 1  # FAISS warns below 39; the smallest lists here have 32
        index.train(vectors)
        index.nprobe = PROBES  # kept in the file
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
    """Best rows for one vector [D]: scores and row numbers, best first; at most `count`."""
    scores, rows = index.search(vector[None, :], min(count, index.ntotal))
    found = rows[0] >= 0
    return scores[0][found], rows[0][found]
