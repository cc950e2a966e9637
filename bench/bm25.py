"""BM25 over short texts (Robertson and Zaragoza 2009, with the never-negative idf of Lucene): the lexical peer."""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORD = re.compile(r"[a-z0-9]+")
JOINED = re.compile(r"[a-z0-9]+(?:[-/.][a-z0-9]+)*")


def words(text: str) -> list[str]:
    """Letters and digits."""
    return WORD.findall(text.lower())


def stems(text: str) -> list[str]:
    """Letters and digits, plural s removed."""
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in words(text)]


def models(text: str) -> list[str]:
    """Stems, and hyphenated words also in one piece, so that "tn-3170" is found by "tn3170" and by "3170"."""
    joined = [re.sub(r"[-/.]", "", w) for w in JOINED.findall(text.lower()) if re.search(r"[-/.]", w)]
    return stems(text) + joined


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"words": words, "stems": stems, "models": models}


class BM25:
    """Scores every document for a query."""

    def __init__(self, texts: Sequence[str], *, k1: float, b: float, tokenizer: str) -> None:
        self._tokens = TOKENIZERS[tokenizer]
        counts = [Counter(self._tokens(t)) for t in texts]
        lengths = np.array([c.total() for c in counts], np.float32)
        norm = k1 * (1 - b + b * lengths / lengths.mean())
        postings: dict[str, list[tuple[int, int]]] = {}
        for row, count in enumerate(counts):
            for term, n in count.items():
                postings.setdefault(term, []).append((row, n))
        self._postings = {}
        for term, found in postings.items():
            rows = np.array([r for r, _ in found])
            n = np.array([c for _, c in found], np.float32)
            idf = math.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
            self._postings[term] = rows, idf * n * (k1 + 1) / (n + norm[rows])
        self._size = len(texts)

    def scores(self, query: str) -> np.ndarray:
        """Score of each document, float32 [N]."""
        result = np.zeros(self._size, np.float32)
        for term in self._tokens(query):
            if term in self._postings:
                rows, weights = self._postings[term]
                result[rows] += weights
        return result
