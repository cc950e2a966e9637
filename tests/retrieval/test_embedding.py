"""The static embedder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from retrieval.embedding import (
    MAX_CHARACTERS,
    SHIPPED,
    STATIC_FILES,
    StaticConfig,
    StaticEmbedder,
    save_static,
)
from retrieval.errors import EmbedderError

EMBEDDER = StaticEmbedder(SHIPPED)


def test_vectors_are_the_plain_sum_of_weighted_tokens() -> None:
    """The fast path equals a loop over tokens in float64."""
    text = "HP LaserJet toner"
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    table = np.load(SHIPPED / "table.npy").astype(np.float64)
    scales = np.load(SHIPPED / "scales.npy").astype(np.float64)
    plain = np.zeros(EMBEDDER.dimension)
    for token in tokenizer.encode(text, add_special_tokens=False).ids:
        plain += scales[token] * table[token]
    np.testing.assert_allclose(EMBEDDER.embed([text])[0], plain / np.linalg.norm(plain), atol=1e-6)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_a_vector_depends_on_its_text_alone(texts: list[str]) -> None:
    """Neighbours in a batch do not move a vector, and its length is one or zero."""
    together = EMBEDDER.embed(texts)
    assert together.shape == (len(texts), EMBEDDER.dimension)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_array_equal(EMBEDDER.embed([text])[0], vector)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) or not vector.any()


def test_special_tokens_in_text_are_text() -> None:
    """Special names from a caller are read as words: "[MASK]" is near "mask" and far from nothing."""
    marker, word = EMBEDDER.embed(["[MASK]", "mask"])
    assert marker @ word > 0.5


def test_cost_does_not_follow_the_length_of_a_text() -> None:
    """What is past the limit changes nothing."""
    text = "toner " * MAX_CHARACTERS
    np.testing.assert_array_equal(EMBEDDER.embed([text]), EMBEDDER.embed([text[:MAX_CHARACTERS]]))


def test_related_words_are_near() -> None:
    """It has learned meaning, not only spelling."""
    laptop, notebook, toner = EMBEDDER.embed(["laptop", "notebook computer", "toner cartridge"])
    assert laptop @ notebook > laptop @ toner + 0.2


def test_saving_and_loading_keeps_vectors(tmp_path: Path) -> None:
    """Quantisation to one byte a component costs less than one degree, and no token is lost."""
    rng = np.random.default_rng(0)
    size = json.loads((SHIPPED / "tokenizer.json").read_text())["model"]["vocab"]
    vectors = rng.normal(size=(len(size), 16)).astype(np.float32)
    vectors[5] = 0
    config = StaticConfig("test", 16, 0.5, {})
    save_static(tmp_path, config=config, tokenizer=(SHIPPED / "tokenizer.json").read_text(), vectors=vectors)
    loaded = StaticEmbedder(tmp_path)
    ids = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("toner cartridge", add_special_tokens=False).ids
    expected = vectors[ids].sum(0)
    assert loaded.embed(["toner cartridge"])[0] @ expected / np.linalg.norm(expected) > 0.9998
    assert loaded.config == config


@pytest.mark.parametrize("name", STATIC_FILES)
def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    """Each file: absent, and cut in the middle. The error names folder or file."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "embedder"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(EmbedderError, match="embedder"):
        StaticEmbedder(folder)
    (folder / name).unlink()
    with pytest.raises(EmbedderError, match="embedder"):
        StaticEmbedder(folder)


def test_a_table_that_does_not_fit_the_vocabulary_is_refused(tmp_path: Path) -> None:
    """Wrong type or shape is an error at load, never a wrong vector."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "embedder"))
    np.save(folder / "table.npy", np.zeros((3, 128), np.int8))
    with pytest.raises(EmbedderError, match=r"not int8 \[\d+, D\]"):
        StaticEmbedder(folder)
