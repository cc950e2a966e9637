"""Which words a query shares with a chunk, weighted by how rare they are. Rescoring for the vectors' nearest chunks.

A static vector cannot tell one model number from a similar one; a word can. For the few chunks that the vector index
finds, three shares are computed: of the query's words, how many are in the chunk, how many in a name of its subject
(the title is the first name), and of that name's words, how many are in the query. Each word weighs its idf (the one of
BM25: Robertson and Zaragoza 2009). Files, all read by memory map:

    terms.npy       uint32 [T]      numbers of each chunk's words, chunk after chunk; the four highest bits say which of
                                    its names hold the word
    term_rows.npy   uint64 [N + 1]  where each chunk's words begin
    words.npy       uint64 [W]      hash of each word, sorted; a word's number is its place
    idf.npy         float32 [W]
"""

from __future__ import annotations

import hashlib
import re
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from retrieval.errors import SnapshotError
from retrieval.wordlists import wordlist

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

TERMS: Final = "terms.npy"
ROWS: Final = "term_rows.npy"
WORDS: Final = "words.npy"
IDF: Final = "idf.npy"
LEXICON_FILES: Final = (TERMS, ROWS, WORDS, IDF)
MAX_NAMES: Final = 4
SHIFT: Final = 32 - MAX_NAMES
NUMBER: Final = np.uint32((1 << SHIFT) - 1)
MAX_QUERY_WORDS: Final = 64
_RUN: Final = re.compile(r"[^\W_]+(?:[-/.][^\W_]+)*")
_PART: Final = re.compile(r"[-/.]")
_FUNCTION: Final = wordlist("function")
_PLURAL: Final = 4  # letters; "cables" loses its s, "gas" keeps it


def words(text: str) -> set[str]:
    """Words of a text: lower case, no plural s, no function words; "TN-3170" as tn, 3170 and tn3170."""
    found: set[str] = set()
    for run in _RUN.findall(text.lower()):
        parts = _PART.split(run)
        found.update(w[:-1] if len(w) >= _PLURAL and w[-1] == "s" and w[-2] != "s" else w for w in parts)
        if len(parts) > 1:
            found.add("".join(parts))
    return found - _FUNCTION


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


class LexiconWriter:
    """Collects the words of chunks in row order and writes the four files."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._marks = array("B")
        self._rows = array("Q", [0])

    def add(self, names: Sequence[str], text: str) -> None:
        """The next chunk: names of its subject, of which the first MAX_NAMES count, and its text."""
        named = [words(name) for name in names[:MAX_NAMES]]
        for word in sorted(words(text).union(*named)):
            self._hashes.append(_hash(word))
            self._marks.append(sum((word in own) << n for n, own in enumerate(named)))
        self._rows.append(len(self._hashes))

    def write(self, folder: Path) -> None:
        """Write the files."""
        hashes = np.frombuffer(self._hashes, np.uint64) if self._hashes else np.zeros(0, np.uint64)
        known, numbers, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        marks = np.frombuffer(self._marks, np.uint8).astype(np.uint32) if self._marks else np.zeros(0, np.uint32)
        chunks = len(self._rows) - 1
        np.save(folder / TERMS, numbers.astype(np.uint32) | (marks << np.uint32(SHIFT)))
        np.save(folder / ROWS, np.frombuffer(self._rows, np.uint64))
        np.save(folder / WORDS, known)
        np.save(folder / IDF, np.log1p((chunks - counts + 0.5) / (counts + 0.5)).astype(np.float32))


class Lexicon:
    """An open lexicon.

    Raises:
        SnapshotError: the files do not fit together or the number of chunks.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        def load(name: str) -> npt.NDArray[np.generic]:
            # A plain array over the map: the map's own class costs microseconds for every slice.
            return np.asarray(np.load(folder / name, mmap_mode="r", allow_pickle=False))

        self._terms, self._rows, self._words, self._idf = (load(name) for name in LEXICON_FILES)
        fits = (
            self._rows.shape == (rows + 1,)
            and int(self._rows[-1]) == len(self._terms)
            and self._words.shape == self._idf.shape
            and self._terms.dtype == np.uint32
        )
        if not fits:
            raise SnapshotError(f"{folder / TERMS} and the files beside it do not fit together")
        self._rarest = float(np.log1p(rows + 0.5))

    def shares(self, query: str, rows: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Shares in [0, 1] for each of R rows, float32 [3, R].

        Of the query in the chunk, of the query in a name, of a name in the query; the best name counts. A word that no
        chunk holds counts as the rarest: a query about something else does not match by its small words.
        """
        numbers, asked = self._numbers(sorted(words(query))[:MAX_QUERY_WORDS])
        asked = max(asked, 1e-9)
        chosen = np.asarray(rows)
        count = len(chosen)
        starts, ends = self._rows[chosen].astype(np.int64), self._rows[chosen + 1].astype(np.int64)
        lengths = ends - starts
        own = np.repeat(np.arange(count), lengths)
        # One gather instead of a slice a row: place in the whole = start of the row + place within it.
        within = np.arange(len(own)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        marked = self._terms[within + np.repeat(starts, lengths)]
        terms = marked & NUMBER
        weights = self._idf[terms].astype(np.float64)
        known = np.zeros(len(terms), bool)
        for number in numbers:  # few: faster than a sort
            known |= terms == number
        shares = np.zeros((3, count))
        shares[0] = np.bincount(own, weights * known, count) / asked
        named = np.flatnonzero(marked >> np.uint32(SHIFT))
        own, weights, known, marks = own[named], weights[named], known[named], marked[named] >> np.uint32(SHIFT)
        for n in range(MAX_NAMES):
            inside = weights * ((marks >> np.uint32(n)) & np.uint32(1))
            both, whole = np.bincount(own, inside * known, count), np.bincount(own, inside, count)
            np.maximum(shares[1], both / asked, out=shares[1])
            np.maximum(shares[2], both / np.where(whole > 0, whole, 1), out=shares[2])
        return shares.astype(np.float32)

    def _numbers(self, query: Iterable[str]) -> tuple[npt.NDArray[np.uint32], float]:
        """Numbers of the known words of a query, and the weight of all of its words."""
        hashes = np.array([_hash(w) for w in query], np.uint64)
        places = np.minimum(np.searchsorted(self._words, hashes), len(self._words) - 1)
        known = self._words[places] == hashes
        numbers = places[known].astype(np.uint32)
        return numbers, float(self._idf[numbers].sum()) + self._rarest * float((~known).sum())
