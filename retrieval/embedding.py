"""Texts to unit vectors. The default embedder is static: one learned vector per token, summed.

It reads a query in tens of microseconds with numpy and tokenizers alone, because nothing in it depends on the order of
words: the idea of fastText (arXiv 1607.01759) and Model2Vec. retrieval/distill.py trains it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from tokenizers import Tokenizer

from retrieval.errors import EmbedderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

SHIPPED: Final = Path(__file__).parent / "embedder"
CONFIG: Final = "embedder.json"
TOKENIZER: Final = "tokenizer.json"
TABLE: Final = "table.npy"
SCALES: Final = "scales.npy"
STATIC_FILES: Final = (CONFIG, TOKENIZER, TABLE, SCALES)
MAX_CHARACTERS: Final = (
    4096  # of one text; a query or chunk is far shorter, and cost must not follow an attacker's length
)


class Embedder(Protocol):
    """Turns texts into vectors whose inner product is their similarity."""

    @property
    def id(self) -> str:
        """Changes whenever the vectors do."""

    @property
    def dimension(self) -> int:
        """D."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of N texts, float32 [N, D], each of length 1, or 0 when nothing in the text is known."""


@dataclass(frozen=True, slots=True)
class StaticConfig:
    """`embedder.json`: what a static embedder is, and the gate that suits its scores."""

    name: str
    dimension: int
    tau: float
    training: dict[str, object]


class StaticEmbedder:
    """Sum of int8 token vectors, each with a float16 scale that carries the token's weight.

    Args:
        folder: holds embedder.json, tokenizer.json, table.npy (int8 [V, D]) and scales.npy (float16 [V]).

    Raises:
        EmbedderError: a file is missing, damaged or of the wrong shape; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.config = StaticConfig(**json.loads((folder / CONFIG).read_bytes()))
            self._tokenizer = Tokenizer.from_str((folder / TOKENIZER).read_text(encoding="utf-8"))
            self._table = np.load(folder / TABLE, allow_pickle=False)
            self._scales = np.load(folder / SCALES, allow_pickle=False).astype(np.float32)
            digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in STATIC_FILES[1:])).hexdigest()
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise EmbedderError(f"{folder} holds no usable static embedder: {error}") from error
        except Exception as error:  # tokenizers raises plain Exception for a bad file
            raise EmbedderError(f"{folder / TOKENIZER} is not a tokenizer: {error}") from error
        size = self._tokenizer.get_vocab_size()
        if self._table.dtype != np.int8 or self._table.shape != (size, self.config.dimension):
            raise EmbedderError(f"{folder / TABLE} is {self._table.dtype}{self._table.shape}, not int8 [{size}, D]")
        if self._scales.shape != (size,):
            raise EmbedderError(f"{folder / SCALES} has the shape {self._scales.shape}, not [{size}]")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.folder = folder
        self.id = f"{self.config.name}@{digest[:12]}"

    @property
    def dimension(self) -> int:
        """D."""
        return self.config.dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of N texts, float32 [N, D]. Tokens are summed, so the order of words is not seen."""
        cuts = [text[:MAX_CHARACTERS] for text in texts]
        result = np.zeros((len(cuts), self.config.dimension), np.float32)
        encodings = self._tokenizer.encode_batch_fast(cuts, add_special_tokens=False)
        for n, encoding in enumerate(encodings):
            ids = encoding.ids
            if ids:
                result[n] = self._scales[ids] @ self._table[ids].astype(np.float32)
        lengths = np.linalg.norm(result, axis=1, keepdims=True)
        np.divide(result, lengths, out=result, where=lengths > 0)
        return result


def save_static(folder: Path, *, config: StaticConfig, tokenizer: str, vectors: Vectors) -> None:
    """Write a static embedder.

    Args:
        folder: made if absent.
        config: its dimension must be D.
        tokenizer: tokenizer.json as text, V entries; its truncation and padding are left out.
        vectors: float32 [V, D]; a token's weight is its vector's length.
    """
    largest = np.abs(vectors).max(axis=1)
    scales = (largest / 127).astype(np.float16)
    steps = np.where(scales > 0, scales, 1).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / TABLE, np.clip(np.rint(vectors / steps[:, None]), -127, 127).astype(np.int8))
    np.save(folder / SCALES, scales)
    plain = Tokenizer.from_str(tokenizer)
    plain.no_truncation()
    plain.no_padding()
    (folder / TOKENIZER).write_text(plain.to_str(), encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")
