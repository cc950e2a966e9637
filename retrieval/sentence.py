"""Any sentence-transformers model as an embedder, by name. Needs the extra `sentence-transformers` (torch)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from retrieval.errors import EmbedderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrieval.embedding import Vectors


class SentenceEmbedder:
    """Wraps a sentence-transformers model; its vectors are normalised.

    Args:
        name: model name or local folder.

    Raises:
        EmbedderError: the extra is not installed, or the model cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        try:
            from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise EmbedderError(
                f"the embedder {name!r} needs sentence-transformers: pip install 'tierwise[sentence-transformers]'"
            ) from error
        try:
            self._model = SentenceTransformer(name, device="cpu")
        except (OSError, ValueError, RuntimeError) as error:
            raise EmbedderError(f"the sentence-transformers model {name!r} cannot be loaded: {error}") from error
        probe = self.embed(["tierwise probe"])[0]
        # Weights are fingerprinted through what they do: rounding keeps the id equal across processors.
        digest = hashlib.sha256(np.rint(probe * 100).astype(np.int16).tobytes()).hexdigest()
        self.id = f"sentence-transformers:{name}@{digest[:12]}"

    @property
    def dimension(self) -> int:
        """D."""
        return int(self._model.get_sentence_embedding_dimension() or 0)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of N texts, float32 [N, D], of length 1."""
        vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)
