"""Embedders by name, without the extra that they need."""

from __future__ import annotations

import sys

import pytest

from retrieval.errors import EmbedderError
from retrieval.sentence import SentenceEmbedder


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EmbedderError, match=r"tierwise\[sentence-transformers\]"):
        SentenceEmbedder("all-MiniLM-L6-v2")
