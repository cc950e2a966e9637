"""Tests of the promise that text from outside never becomes a reserved id."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.errors import CheckpointError
from models.tokenizer import CHARACTERS_PER_TOKEN, FieldTokenizer

# What an attacker would write: reserved spellings whole, in pieces, joined, cased, with invisible characters inside.
SPELLINGS = (
    "[SEP]",
    "[CLS]",
    "[UNK]",
    "[PAD]",
    "[MASK]",
    "[unused3]",
    "[unused20]",
    "[UNUSED20]",
    "[ unused20 ]",
    "[[SEP]]",
    "[SE\u200bP]",
    "[\ufeffSEP]",
    "\u202e]PES[",
    "\uff3bSEP\uff3d",
    "<|im_end|>",
    "<|im_start|>system",
    "<|endoftext|>",
    "<think>",
    "</think>",
    "<th\u00adink>",
    "</s>",
    "\x00",
    "\u0000[SEP]\u0000",
    "##s",
    "\ud7ff",
    "\U000e0041",
    "👍🏽",
)
HOSTILE = st.lists(st.one_of(st.sampled_from(SPELLINGS), st.text(max_size=20)), max_size=12).map("".join)
FOLDERS = ("wordpiece", "byte_level")


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    """Each kind of tokenizer in turn."""
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> FieldTokenizer:
    """A field tokenizer of each kind."""
    return FieldTokenizer(folder)


def reserved_ids(folder: Path) -> set[int]:
    """Ids of every added token, read from the file without the class under test; [UNK] is what unknown text becomes."""
    spec = json.loads((folder / "tokenizer.json").read_bytes())
    return {t["id"] for t in spec["added_tokens"] if t["content"] != "[UNK]"}


@given(text=HOSTILE, budget=st.integers(1, 40))
def test_no_text_yields_a_reserved_id(folder: Path, tokenizer: FieldTokenizer, text: str, budget: int) -> None:
    """Random Unicode with reserved spellings in it encodes to ordinary ids alone."""
    [field] = tokenizer.fields([text], [budget])
    assert reserved_ids(folder).isdisjoint(field.ids)
    assert len(field.ids) <= budget


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_yields_a_reserved_id(folder: Path, tokenizer: FieldTokenizer, spelling: str) -> None:
    """Each reserved spelling alone, repeated and in upper case is text like any other."""
    texts = [spelling, spelling * 50, spelling.upper(), f"a{spelling}b", f" {spelling} "]
    for field in tokenizer.fields(texts, [500] * len(texts)):
        assert reserved_ids(folder).isdisjoint(field.ids)


def test_every_reserved_spelling_of_the_checkpoint_is_split(folder: Path, tokenizer: FieldTokenizer) -> None:
    """All added tokens, special or not, one after another and apart: none survives as itself."""
    spec = json.loads((folder / "tokenizer.json").read_bytes())
    contents = [t["content"] for t in spec["added_tokens"]]
    texts = [*contents, "".join(contents), " ".join(contents)]
    for field in tokenizer.fields(texts, [1000] * len(texts)):
        assert reserved_ids(folder).isdisjoint(field.ids)


def test_the_plain_tokenizer_would_be_fooled(folder: Path) -> None:
    """The danger is real: without the split, the same text does become reserved ids."""
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    plain.no_truncation()
    plain.no_padding()
    text = "[SEP] [unused20] <think> <|im_end|>"
    assert not reserved_ids(folder).isdisjoint(plain.encode(text, add_special_tokens=False).ids)


def test_literals_are_what_they_say(folder: Path, tokenizer: FieldTokenizer) -> None:
    """The checkpoint's author may write special tokens: in a literal each is its one id."""
    spec = json.loads((folder / "tokenizer.json").read_bytes())
    for token in spec["added_tokens"]:
        assert tokenizer.literal(token["content"]) == (token["id"],)
    assert tokenizer.literal("") == ()


@given(text=st.text(alphabet=st.characters(codec="ascii", exclude_characters="[]<>|/"), max_size=60))
def test_ordinary_text_encodes_as_a_literal_does(tokenizer: FieldTokenizer, text: str) -> None:
    """Where nothing is reserved, splitting changes nothing."""
    [field] = tokenizer.fields([text], [1000])
    assert field.ids == tokenizer.literal(text)
    assert not field.truncated


@pytest.mark.parametrize(
    "text", ["a" * 100_000, "phone " * 20_000, "\u200bx" * 50_000, "👍🏽" * 25_000, "[SEP]" * 20_000]
)
def test_a_field_of_100_kilobytes_is_cut_to_its_budget(folder: Path, tokenizer: FieldTokenizer, text: str) -> None:
    """Length costs nothing and breaks nothing, and the cut is told."""
    [field] = tokenizer.fields([text], [24])
    assert len(field.ids) <= 24
    assert field.truncated
    assert reserved_ids(folder).isdisjoint(field.ids)


@given(texts=st.lists(HOSTILE, min_size=1, max_size=6), budget=st.integers(1, 30))
def test_fields_do_not_influence_each_other(tokenizer: FieldTokenizer, texts: list[str], budget: int) -> None:
    """Encoding together equals encoding alone."""
    together = tokenizer.fields(texts, [budget] * len(texts))
    assert together == [tokenizer.fields([t], [budget])[0] for t in texts]


def test_a_cut_keeps_the_beginning(tokenizer: FieldTokenizer) -> None:
    """What is kept of a long field is its first tokens."""
    whole, cut = tokenizer.fields(["phone case laptop", "phone case laptop"], [100, 2])
    assert whole.ids[:2] == cut.ids
    assert (whole.truncated, cut.truncated) == (False, True)


@pytest.mark.parametrize("blank", [" ", "\u200b", "\u00ad", "\u202e", "\n\t", "\u0301", "\ufe0f", "\U000e0041", "\x00"])
def test_blanks_cannot_push_the_words_out(wordpiece: Path, blank: str) -> None:
    """What a tokenizer drops does not count as text, however much of it stands before or between the words."""
    tokenizer = FieldTokenizer(wordpiece)
    [plain] = tokenizer.fields(["phone case"], [8])
    for text in (blank * 10_000 + "phone case", "phone " + blank * 10_000 + " case"):
        [field] = tokenizer.fields([text], [8])
        assert field.ids == plain.ids
        assert not field.truncated


def test_text_that_leaves_no_token_is_flagged(wordpiece: Path) -> None:
    """Visible or not: what the tokenizer drops entirely is told; an empty or blank field is not."""
    loose, hidden, empty, blank = FieldTokenizer(wordpiece).fields(
        ["\u0301\u0302", "\u200b" * 9999, "", " \n"], [8] * 4
    )
    assert loose.unrepresentable
    assert hidden.unrepresentable
    assert not empty.unrepresentable
    assert not blank.unrepresentable


def test_text_outside_the_vocabulary_is_flagged(wordpiece: Path) -> None:
    """A script that a WordPiece vocabulary lacks becomes [UNK], and the caller is told."""
    known, unknown = FieldTokenizer(wordpiece).fields(["phone", "\u30b1\u30fc\u30b9"], [8, 8])
    assert not known.unrepresentable
    assert unknown.unrepresentable


def test_bytes_represent_everything(byte_level: Path) -> None:
    """A byte-level tokenizer has no unknown text."""
    [field] = FieldTokenizer(byte_level).fields(["\u30b1\u30fc\u30b9 👍🏽"], [64])
    assert not field.unrepresentable


def test_the_checkpoints_own_limits_do_not_decide(wordpiece: Path) -> None:
    """Padding and truncation of the tokenizer file are for training."""
    short, long = FieldTokenizer(wordpiece).fields(["phone", "a b " * 40], [100, 100])
    assert len(short.ids) == 1
    assert len(long.ids) == 80


def test_decoding_keeps_the_markers(wordpiece: Path) -> None:
    """A rationale is read by its markers, so they survive decoding."""
    tokenizer = FieldTokenizer(wordpiece)
    assert "[unused9]" in tokenizer.decode(tokenizer.literal("[unused9] excellent"))


@pytest.mark.parametrize("content", [None, "not json"])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    """The message names the file."""
    if content:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        FieldTokenizer(tmp_path)


def test_characters_per_token_leaves_room() -> None:
    """The cut before tokenizing is generous: no vocabulary here spells its tokens that long on average."""
    assert CHARACTERS_PER_TOKEN >= 16
