"""Tests of BM25, and of the message where the sentence encoder's extra is missing."""

import math
import sys

import pytest

from models.evaluation.baselines import BM25, BaselineMissingError, SentenceEncoder, bm25_scores, full_text, words
from models.evaluation.pairs import LabelledPair
from models.prompt import Item


def test_bm25_by_hand() -> None:
    """One of two documents of three and one words holds the term once."""
    index = BM25(["red phone case", "laptop"], k1=1.2, b=0.75)
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    norm = 1.2 * (1 - 0.75 + 0.75 * 3 / 2)
    assert index.score("phone", "red phone case") == pytest.approx(idf * 2.2 / (1 + norm))
    assert index.score("tablet", "red phone case") == 0.0


def test_bm25_prefers_rare_terms_and_short_texts() -> None:
    """What BM25 is for: rarity, repetition with saturation, length."""
    index = BM25(["phone case", "phone cover", "phone stand", "laptop case"])
    assert index.score("stand", "phone stand") > index.score("phone", "phone stand")
    assert index.score("case", "case") > index.score("case", "a very long text about one case")
    once, twice, thrice = (index.score("case", "case " * n + "x " * (3 - n)) for n in (1, 2, 3))
    assert 0 < thrice - twice < twice - once


def test_pairs_are_scored_by_title_brand_and_description() -> None:
    """Every text field that the reference uses counts, in any case."""
    corpus = [Item("Phone", "Acme", description="with a stylus"), Item("Case")]
    found = bm25_scores([LabelledPair(q, "1", corpus[0], 0, q) for q in ("PHONE", "acme", "stylus", "case")], corpus)
    assert list(found > 0) == [True, True, True, False]
    assert full_text(corpus[0]) == "Phone Acme with a stylus"


def test_words_split_as_the_reference_does() -> None:
    """Letters and digits stay together; everything else separates."""
    assert words("USB-C 3.0, Ø32 mm_x") == ["usb", "c", "3", "0", "ø32", "mm", "x"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch the command goes on and says what to install."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(BaselineMissingError, match=r"pip install 'tierwise\[train\]'"):
        SentenceEncoder()
