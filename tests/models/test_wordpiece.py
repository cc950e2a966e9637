"""Tests of WordPiece in plain Python: always the same as the tokenizer library, and used where it can be."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.manifest import SHIPPED
from models.tokenizer import FieldTokenizer
from models.wordpiece import word_pieces
from tests.models.test_tokenizer import SPELLINGS

PAIRS = Path(__file__).parents[1] / "fixtures" / "pairs.jsonl"
WORDS = st.one_of(
    st.sampled_from([*SPELLINGS, "phone", "Phones", "CB541A", "ß", "İ", "Σας", "\u212b", "e\u0301", "日本", "№"]),
    st.text(st.characters(codec="ascii"), max_size=12),
    st.text(st.characters(max_codepoint=0x52F), max_size=8),
    st.text(st.characters(min_codepoint=0x2000, max_codepoint=0x214F), max_size=4),
    st.text(max_size=8),
    st.integers(97, 103).map("x".__mul__),  # around the most characters of a word
    st.integers(30, 40).map("ab3".__mul__),
)
BETWEEN = st.sampled_from(["", " ", "\t", "\n", "-", "\x00", "\u00a0"])
TEXTS = st.lists(st.tuples(WORDS, BETWEEN), max_size=20).map(lambda parts: "".join(chain.from_iterable(parts)))


def spec_of(folder: Path) -> dict[str, Any]:
    """A tokenizer's file as a value."""
    spec: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes())
    return spec


@pytest.fixture(scope="module", params=["tiny", "shipped"])
def folder(request: pytest.FixtureRequest) -> Path:
    """A WordPiece tokenizer that lacks most characters, and one that lacks few."""
    path: Path = request.getfixturevalue("wordpiece") if request.param == "tiny" else SHIPPED
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> FieldTokenizer:
    """Encodes in plain Python where it can."""
    return FieldTokenizer(folder)


@pytest.fixture(scope="module")
def library(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FieldTokenizer:
    """The same tokenizer, written in another way, which only the library knows."""
    spec = spec_of(folder)
    spec["normalizer"] = {"type": "Sequence", "normalizers": [spec["normalizer"]]}
    other = tmp_path_factory.mktemp("library")
    (other / "tokenizer.json").write_text(json.dumps(spec))
    assert word_pieces(spec, Tokenizer.from_str(json.dumps(spec))) is None
    return FieldTokenizer(other)


@given(texts=st.lists(TEXTS, min_size=1, max_size=5), budget=st.integers(1, 40))
def test_any_text_encodes_as_the_library_does(
    ours: FieldTokenizer, library: FieldTokenizer, texts: list[str], budget: int
) -> None:
    """Whatever is written, ids, cut and flags are the same, alone and beside other texts."""
    budgets = [budget + n for n in range(len(texts))]
    assert ours.fields(texts, budgets) == library.fields(texts, budgets)


def test_every_character_encodes_as_the_library_does(ours: FieldTokenizer, library: FieldTokenizer) -> None:
    """All of the first scripts, alone, within a word and beside an accent."""
    characters = [chr(c) for c in range(0x3100)]
    texts = [form.format(c) for c in characters for form in ("{}", "a{}b", "{}\u0301", "{0}{0} {0}")]
    assert ours.fields(texts, [8] * len(texts)) == library.fields(texts, [8] * len(texts))


@pytest.mark.parametrize("budget", [1, 2, 7, 24, 72])
def test_real_pairs_encode_as_the_library_does(ours: FieldTokenizer, library: FieldTokenizer, budget: int) -> None:
    """Queries, chunks, titles and attributes of a real catalogue, whole and cut."""
    texts = []
    for line in PAIRS.read_text().splitlines():
        pair = json.loads(line)
        texts += [text for text in (pair["query"], pair["chunk"], *pair["item"].values()) if isinstance(text, str)]
        texts.append(json.dumps(pair["item"].get("attributes"), ensure_ascii=False))
    assert ours.fields(texts, [budget] * len(texts)) == library.fields(texts, [budget] * len(texts))


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("WH-1000XM4 [SEP]\t(black)\n", True),
        ("Kopfhörer \u2013 30 °C, 24″, Μαύρο, чёрный", True),
        ("a\x00b\u200bc", True),
        ("", True),
        ("e\u0301", False),
        ("日本", False),
        ("\ud800", False),
    ],
)
def test_what_is_left_to_the_library(text: str, known: bool) -> None:  # noqa: FBT001 # a case
    """European scripts are not; accents of their own, other scripts and emoji are."""
    spec = spec_of(SHIPPED)
    pieces = word_pieces(spec, Tokenizer.from_str(json.dumps(spec)))
    assert pieces is not None
    assert [ids is not None for ids in pieces.encode([text, "phone"], [8, 8])] == [known, True]


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("normalizer", None),
        ("normalizer", {"lowercase": False}),
        ("normalizer", {"strip_accents": False}),
        ("normalizer", {"clean_text": False}),
        ("pre_tokenizer", {"type": "Whitespace"}),
        ("pre_tokenizer", None),
    ],
)
def test_another_kind_of_tokenizer_is_left_to_the_library(part: str, changed: dict[str, Any] | None) -> None:
    """One setting that is not BERT's, and none of its rules is assumed."""
    spec = spec_of(SHIPPED)
    spec[part] = changed if changed is None else spec[part] | changed
    assert word_pieces(spec, Tokenizer.from_str(json.dumps(spec))) is None


def test_another_kind_of_model_is_left_to_the_library(byte_level: Path) -> None:
    """A byte-level vocabulary is none of word pieces."""
    assert word_pieces(spec_of(byte_level), Tokenizer.from_file(str(byte_level / "tokenizer.json"))) is None


def test_a_reserved_id_is_still_refused(tmp_path: Path, wordpiece: Path) -> None:
    """A checkpoint that reserves a plain word does not have it smuggled in, whoever encodes."""
    spec = spec_of(wordpiece)
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": spec["model"]["vocab"]["phone"], "content": "phone"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(AssertionError, match="reserved"):
        FieldTokenizer(tmp_path).fields(["phone"], [8])
