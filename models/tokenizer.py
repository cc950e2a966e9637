"""Text to ids, with one promise: text from callers and chunks never becomes a reserved id.

`add_special_tokens=False` is not enough: a tokenizer still maps the string "[SEP]" to its id. And a user's checkpoint
may have added tokens that are not special (Qwen's `<think>`). So fields are encoded by a copy of the tokenizer in which
every added token is special and special tokens are split like any other text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenizers import Tokenizer

from models.errors import CheckpointError
from models.wordpiece import word_pieces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOKENIZER_NAME: Final = "tokenizer.json"
# No token is spelled with more characters than this on average; longer text is cut before it is tokenized, so that a
# 100 kB field costs what a short one does.
CHARACTERS_PER_TOKEN: Final = 24
# Runs of what tokenizers drop (controls, zero-width and direction marks, soft hyphens, accents) or merge (spaces).
# They must not push the words of a long text beyond that cut.
_DROPPED: Final = re.compile(
    "[\\x00-\\x08\\x0e-\\x1f\\x7f-\\x9f\\xad\\u0300-\\u036f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufe00-\\ufe0f\\ufeff"
    "\\ufff9-\\ufffb\\U000e0000-\\U000e01ef]{2,}"
)
_SPACES: Final = re.compile(r"\s{2,}")


class EncodedField(NamedTuple):
    """Ids of one field, cut to its budget.

    Attributes:
        ids: at most as many as the budget.
        truncated: there was more.
        unrepresentable: some of it is unknown to the tokenizer, or it drops all of it.
    """

    ids: tuple[int, ...]
    truncated: bool
    unrepresentable: bool


class FieldTokenizer:
    """Encodes trusted literals and untrusted fields of one checkpoint."""

    def __init__(self, folder: Path) -> None:
        path = folder / TOKENIZER_NAME
        try:
            spec = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise CheckpointError(f"{path} is missing or not JSON") from error
        # The checkpoint's own truncation and padding are meant for training; here budgets decide.
        spec["truncation"] = spec["padding"] = None
        self._literals = Tokenizer.from_str(json.dumps(spec))
        for token in spec.get("added_tokens", []):
            token["special"] = True
        self._fields = Tokenizer.from_str(json.dumps(spec))
        self._fields.encode_special_tokens = True
        self._fast = word_pieces(spec, self._fields)
        # About; a text that is left to the library takes four times as long as others.
        self.characters_per_ms = 12_000 if self._fast else 3_000
        unknown = spec.get("model", {}).get("unk_token")
        self.unknown_id: int | None = self._fields.token_to_id(unknown) if unknown else None
        self.reserved: frozenset[int] = frozenset(t["id"] for t in spec.get("added_tokens", [])) - {self.unknown_id}
        self.vocabulary_size: int = self._fields.get_vocab_size(with_added_tokens=True)

    def literal(self, text: str) -> tuple[int, ...]:
        """Ids of a literal from the checkpoint's template; special tokens are what they say."""
        return tuple(self._literals.encode(text, add_special_tokens=False).ids) if text else ()

    def fields(self, texts: Sequence[str], budgets: Sequence[int]) -> list[EncodedField]:
        """Encode untrusted texts in one call, each cut to its budget in tokens."""
        limits = [budget * CHARACTERS_PER_TOKEN for budget in budgets]
        closed = [text if len(text) <= n else _close_up(text) for text, n in zip(texts, limits, strict=True)]
        cuts = [text[:n] for text, n in zip(closed, limits, strict=True)]
        result = []
        encoded = self._encode(cuts, budgets)
        for text, whole, cut, budget, ids in zip(texts, closed, cuts, budgets, encoded, strict=True):
            if not self.reserved.isdisjoint(ids):
                raise AssertionError("a reserved token id came out of untrusted text")
            kept = tuple(ids[:budget])
            truncated = len(ids) > budget or len(cut) < len(whole)
            unrepresentable = self.unknown_id in kept if kept else not (text.isspace() or text == "")
            result.append(EncodedField(kept, truncated, unrepresentable))
        return result

    def _encode(self, texts: Sequence[str], budgets: Sequence[int]) -> list[list[int]]:
        """Ids of each text; where there are more than its budget, at least one more."""
        if self._fast is None:
            return [e.ids for e in self._fields.encode_batch_fast(texts, add_special_tokens=False)]
        encoded = self._fast.encode(texts, budgets)
        others = [text for text, ids in zip(texts, encoded, strict=True) if ids is None]
        rest = iter(self._fields.encode_batch_fast(others, add_special_tokens=False) if others else ())
        return [next(rest).ids if ids is None else ids for ids in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text, special tokens kept: the rationale's markers are among them."""
        return str(self._literals.decode(list(ids), skip_special_tokens=False))


def _close_up(text: str) -> str:
    """A text without what tokenizers drop, and with its blank runs closed."""
    return _SPACES.sub(" ", _DROPPED.sub("", text)).strip()
