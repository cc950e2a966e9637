"""Chunks within a token budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.chunks import Chunker, leading_title
from retrieval.documents import Document

if TYPE_CHECKING:
    from collections.abc import Sequence


def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def count_characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def document(text: str, title: str = "") -> Document:
    return Document(id="d", text=text, source="s", title=title, url="u")


def test_a_short_document_is_one_chunk_with_its_id() -> None:
    """Nothing is split that fits; title, source and url travel."""
    [chunk] = Chunker(count_words).chunk(document("Few words.", "Title"))
    assert (chunk.id, chunk.text, chunk.source, chunk.title, chunk.url) == ("d", "Title: Few words.", "s", "Title", "u")


def test_chunks_end_at_sentences_and_share_the_last_ones() -> None:
    """Whole sentences are packed, the next chunk begins with the sentence before, the title leads each."""
    text = "One two three. Four five six. Seven eight nine. Ten eleven twelve."
    chunks = list(Chunker(count_words, budget=10, overlap=3).chunk(document(text, "T")))
    assert [c.id for c in chunks] == ["d", "d#2"]
    assert [c.text for c in chunks] == [
        "T: One two three. Four five six. Seven eight nine.",
        "T: Seven eight nine. Ten eleven twelve.",
    ]


def test_a_title_without_room_for_text_is_text() -> None:
    """A title of half the budget or more is cut like the rest instead of leading every chunk."""
    chunks = list(Chunker(count_words, budget=8, overlap=0).chunk(document("a b c d.", "one two three four five six")))
    assert " ".join(c.text for c in chunks) == "one two three four five six. a b c d."


@given(
    st.lists(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1), max_size=30),
    st.integers(8, 60),
    st.integers(0, 4),
)
def test_no_chunk_is_over_budget_and_no_word_is_lost(parts: list[str], budget: int, overlap: int) -> None:
    """For any text and budget, every chunk fits, and without an overlap the chunks joined are the text."""
    text = " ".join(" ".join(parts).split()) or "x"
    for count in (count_words, count_characters):
        chunks = list(Chunker(count, budget=budget, overlap=overlap).chunk(document(text)))
        assert all(count([c.text])[0] <= budget for c in chunks)
        if overlap == 0:
            assert "".join("".join(c.text for c in chunks).split()) == "".join(text.split())


def test_a_long_text_without_a_space_ends() -> None:
    """A megabyte of one word is cut by characters in bounded work."""
    chunks = list(Chunker(count_characters, budget=1000, overlap=0).chunk(document("x" * 200_000)))
    assert [len(c.text) for c in chunks] == [1000] * 200


@pytest.mark.parametrize(("budget", "overlap"), [(7, 0), (20, 11), (20, -1)])
def test_a_senseless_budget_is_refused(budget: int, overlap: int) -> None:
    """Too small to hold a sentence, or more repeated than new."""
    with pytest.raises(ValueError, match="tokens that share"):
        Chunker(count_words, budget=budget, overlap=overlap)


def test_a_title_is_not_written_twice() -> None:
    """A text that begins with its title stays as it is, in any case of letters."""
    assert leading_title("Toner", "toner: a supply.") == "toner: a supply."
    assert leading_title("Toner", "A supply.") == "Toner: A supply."
