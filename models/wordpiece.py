"""WordPiece in plain Python, for the texts where it is the same as the tokenizer library and several times as fast.

The library spends most of its time on bookkeeping that nobody here reads: offsets, and the spelling of every token. A
BERT tokenizer does to each character the same wherever it stands, but for accents that come as characters of their own,
and so a table of what the library makes of each single character says all of it. Texts with any other character are
left to the library, and so is every other kind of tokenizer.

Nothing is remembered of a text beyond its call: an answer that is faster for words that were seen before would tell one
caller what another one sends.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenizers import Tokenizer

_NORMALIZER: Final = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,  # as lowercase says
    "lowercase": True,
}
_PRE_TOKENIZER: Final = {"type": "BertPreTokenizer"}
# Latin, Greek and Cyrillic; then punctuation, currencies and signs such as the one for a trade mark.
_BLOCKS: Final = (range(0x530), range(0x2000, 0x2150))
_BETWEEN: Final = "\x00"  # of two texts; no plain text can hold it


class WordPieces:
    """Encodes many short texts at once. Made by `word_pieces`, which knows for which tokenizers it is right."""

    def __init__(self, model: Mapping[str, Any], spaced: Mapping[int, str]) -> None:
        vocabulary: dict[str, int] = model["vocab"]
        prefix: str = model["continuing_subword_prefix"]
        self._most_characters: int = model["max_input_chars_per_word"]
        self._unknown = (vocabulary[model["unk_token"]],)
        self._words = {word: i for word, i in vocabulary.items() if len(word) <= self._most_characters}
        self._continuations = {word[len(prefix) :]: i for word, i in vocabulary.items() if word.startswith(prefix)}
        self._longest = max(map(len, vocabulary))
        self._letters = frozenset(chain.from_iterable(vocabulary))
        self._spaced = dict(spaced)
        self._all_known = re.compile(f"[{re.escape(''.join(map(chr, spaced)))}]*").fullmatch
        self._marks = [chr(c) for c in spaced if _is_plain(chr(c)) and spaced[c] == f" {chr(c)} "]

    def encode(self, texts: Sequence[str], most: Sequence[int]) -> list[list[int] | None]:
        """Ids of each text, None where the library has to be asked.

        Args:
            texts: untrusted.
            most: so many ids of each text matter: of a longer one come more than these, but maybe not all.
        """
        new: dict[str, tuple[int, ...]] = {}
        return [
            None if words is None else self._ids(words, n, new)
            for words, n in zip(self._split(texts), most, strict=True)
        ]

    def _split(self, texts: Sequence[str]) -> list[list[str] | None]:
        """Words of each text. What the table does to plain ones is done to all at once, which takes half as long."""
        joined = _BETWEEN.join([text for text in texts if _is_plain(text)]).lower()
        for mark in self._marks:
            joined = joined.replace(mark, f" {mark} ")
        plain = iter(joined.split(_BETWEEN))
        return [next(plain).split() if _is_plain(text) else self._split_other(text) for text in texts]

    def _split_other(self, text: str) -> list[str] | None:
        return text.translate(self._spaced).split() if self._all_known(text) else None

    def _ids(self, words: Sequence[str], most: int, new: dict[str, tuple[int, ...]]) -> list[int]:
        """Ids of the first words; `new` has the words of this call that are none of the vocabulary's."""
        ids: list[int] = []
        known = self._words.get
        for word in words[: most + 1]:  # each is one id at least
            whole = known(word)
            if whole is not None:
                ids.append(whole)
                continue
            pieces = new.get(word)
            if pieces is None:
                if len(ids) > most:
                    break
                pieces = new[word] = self._pieces(word)
            ids += pieces
        return ids

    def _pieces(self, word: str) -> tuple[int, ...]:
        """The longest piece that fits, from left to right; where none fits, the whole word is unknown."""
        length = len(word)
        if length > self._most_characters or not self._letters.issuperset(word):
            return self._unknown  # for want of one letter, which may be the last that a search would come to
        ids = []
        start, pieces = 0, self._words
        while start < length:
            for end in range(min(length, start + self._longest), start, -1):
                piece = pieces.get(word[start:end])
                if piece is not None:
                    break
            else:
                return self._unknown
            ids.append(piece)
            start, pieces = end, self._continuations
        return tuple(ids)


def word_pieces(spec: Mapping[str, Any], tokenizer: Tokenizer) -> WordPieces | None:
    """The same as a tokenizer that splits special tokens like any text; None if it is of another kind.

    Args:
        spec: contents of the tokenizer's file.
        tokenizer: made of it.
    """
    model = spec.get("model") or {}
    if (
        spec.get("normalizer") != _NORMALIZER
        or spec.get("pre_tokenizer") != _PRE_TOKENIZER
        or model.get("type") != "WordPiece"
        or not model.get("continuing_subword_prefix")
        or not isinstance(model.get("max_input_chars_per_word"), int)
        or model.get("unk_token") not in model["vocab"]
    ):
        return None
    spaced = {}
    for character in filter(_stands_alone, map(chr, chain(*_BLOCKS))):
        words = tokenizer.pre_tokenizer.pre_tokenize_str(f"a{tokenizer.normalizer.normalize_str(character)}a")
        spaced[ord(character)] = " ".join([word for word, _ in words])[1:-1]
    return WordPieces(model, spaced)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _stands_alone(character: str) -> bool:
    """Whether it is an assigned character that cannot change its neighbours, as an accent does."""
    return not unicodedata.category(character).startswith(("M", "Cn"))
