"""One query in, at most one chunk out: the knowledge that goes into a request's shared prefix (2510.11122 section 2).

The vector index gives candidates, shared words decide among them; the score is the weighted mean of cosine and three
shares, so it lies in [-1, 1]. Synchronous and below a millisecond; the caller decides where it runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from retrieval.embedding import StaticEmbedder
from retrieval.errors import EmbedderError
from retrieval.index import nearest, open_index
from retrieval.lexicon import Lexicon
from retrieval.snapshot import EMBEDDER, INDEX, ChunkStore, read_manifest, resolve, verify_files

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from retrieval.embedding import Embedder
    from retrieval.snapshot import SnapshotManifest

# Chosen on generated queries of the validation split (bench/knowledge.py, docs/knowledge.md).
CANDIDATES: Final = 64
# Of cosine, query in chunk, query in a name, name in query; they sum to one.
WEIGHTS: Final = np.array([1.0, 2.0, 0.75, 0.5], np.float32) / np.float32(4.25)


@dataclass(frozen=True, slots=True)
class Hit:
    """The chunk for a query. `text` is untrusted data: visible characters only, but anyone's words."""

    chunk_id: str
    text: str
    source: str
    score: float
    url: str = ""


class KnowledgeBase:
    """An open snapshot. Immutable; threads may share it; files stay mapped until the last reference is gone."""

    def __init__(self, snapshot: Path, manifest: SnapshotManifest, embedder: Embedder, tau: float) -> None:
        self.manifest = manifest
        self.tau = tau
        self._embedder = embedder
        self._chunks = ChunkStore(snapshot, manifest.chunks)
        self._lexicon = Lexicon(snapshot, manifest.chunks)
        self._index = open_index(snapshot / INDEX, rows=manifest.chunks, dimension=manifest.dimension)

    @classmethod
    def open(cls, folder: Path, tau: float | None = None) -> KnowledgeBase:
        """Open and check the snapshot in force.

        Args:
            folder: knowledge folder with CURRENT, or one snapshot.
            tau: score gate; the manifest's, chosen for its embedder, when None.

        Raises:
            SnapshotError: missing, changed or truncated; the message names the file.
            EmbedderError: the embedder cannot be loaded or is not the one that made the vectors.
        """
        snapshot = resolve(folder)
        manifest = read_manifest(snapshot)
        verify_files(snapshot, manifest)
        embedder = load_embedder(manifest, snapshot)
        return cls(snapshot, manifest, embedder, manifest.tau if tau is None else tau)

    @property
    def version(self) -> str:
        """Version of the snapshot, 12 hex digits."""
        return self.manifest.version

    @property
    def built_at(self) -> float:
        """When the snapshot was made, in seconds since the epoch."""
        return datetime.fromisoformat(self.manifest.created).timestamp()

    def search(self, query: str, timings_ms: dict[str, float] | None = None) -> Hit | None:
        """The best chunk for a query, or None when its score is below tau.

        Args:
            query: not blank.
            timings_ms: gets the milliseconds of `embed` and `search`.
        """
        started = time.monotonic()
        vector = self._embedder.embed([query])[0]
        embedded = time.monotonic()
        best = self._nearest(query, vector)
        if timings_ms is not None:
            timings_ms["embed"] = round((embedded - started) * 1000.0, 3)
            timings_ms["search"] = round((time.monotonic() - embedded) * 1000.0, 3)
        return best if best and best.score >= self.tau else None

    def best(self, query: str) -> Hit | None:
        """The best chunk whatever its score; None only for a query without a known word."""
        return self._nearest(query, self._embedder.embed([query])[0])

    def _nearest(self, query: str, vector: NDArray[np.float32]) -> Hit | None:
        if not vector.any():
            return None
        cosines, rows = nearest(self._index, vector, CANDIDATES)
        scores = WEIGHTS @ np.stack([cosines, *self._lexicon.shares(query, rows)])
        best = int(np.argmax(scores))
        chunk = self._chunks[int(rows[best])]
        return Hit(chunk.id, chunk.text, chunk.source, float(scores[best]), chunk.url)


def load_embedder(manifest: SnapshotManifest, snapshot: Path) -> Embedder:
    """The embedder that made a snapshot's vectors.

    Raises:
        EmbedderError: it cannot be loaded, or is another one by now.
    """
    embedder: Embedder
    if manifest.embedder_kind == "static":
        embedder = StaticEmbedder(snapshot / EMBEDDER)
    else:
        from retrieval.sentence import SentenceEmbedder  # noqa: PLC0415 - torch is an extra

        embedder = SentenceEmbedder(manifest.embedder.partition(":")[2].rpartition("@")[0])
    if embedder.id != manifest.embedder or embedder.dimension != manifest.dimension:
        raise EmbedderError(
            f"{snapshot} was built with {manifest.embedder} ({manifest.dimension}), "
            f"found {embedder.id} ({embedder.dimension}): build the index again"
        )
    return embedder
