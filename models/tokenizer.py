"""Text to ids, with one promise: text from callers and chunks never becomes a reserved id.

`add_special_tokens=False` is not enough: a tokenizer still maps the string "[SEP]" to its id. And a user's checkpoint
may have added tokens that are not special (Qwen's `<think>`). So fields are encoded by a copy of the tokenizer in which
every added token is special and special tokens are split like any other text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tokenizers import Tokenizer

from models.errors import CheckpointError

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


@dataclass(frozen=True, slots=True)
class EncodedField:
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
        unknown = spec.get("model", {}).get("unk_token")
        self.unknown_id: int | None = self._fields.token_to_id(unknown) if unknown else None
        self.reserved: frozenset[int] = frozenset(t["id"] for t in spec.get("added_tokens", [])) - {self.unknown_id}
        self.vocabulary_size: int = self._fields.get_vocab_size(with_added_tokens=True)

    def literal(self, text: str) -> tuple[int, ...]:
        """Ids of a literal from the checkpoint's template; special tokens are what they say."""
        return tuple(self._literals.encode(text, add_special_tokens=False).ids) if text else ()

    def fields(self, texts: Sequence[str], budgets: Sequence[int]) -> list[EncodedField]:
        """Encode untrusted texts in one call, each cut to its budget in tokens."""
        closed = [_close_up(text, budget) for text, budget in zip(texts, budgets, strict=True)]
        cuts = [text[: budget * CHARACTERS_PER_TOKEN] for text, budget in zip(closed, budgets, strict=True)]
        encodings = self._fields.encode_batch_fast(cuts, add_special_tokens=False)
        result = []
        for text, whole, cut, budget, encoding in zip(texts, closed, cuts, budgets, encodings, strict=True):
            ids = encoding.ids
            if not self.reserved.isdisjoint(ids):
                raise AssertionError("a reserved token id came out of untrusted text")
            kept = tuple(ids[:budget])
            dropped = not kept and not (text.isspace() or text == "")
            result.append(
                EncodedField(
                    ids=kept,
                    truncated=len(ids) > budget or len(cut) < len(whole),
                    unrepresentable=dropped or self.unknown_id in kept,
                )
            )
        return result

    def decode(self, ids: Sequence[int]) -> str:
        """Ids to text, special tokens kept: the rationale's markers are among them."""
        return str(self._literals.decode(list(ids), skip_special_tokens=False))


def _close_up(text: str, budget: int) -> str:
    """A text that may be cut, with its blank runs closed; any other as it is."""
    if len(text) <= budget * CHARACTERS_PER_TOKEN:
        return text
    return _SPACES.sub(" ", _DROPPED.sub("", text)).strip()
