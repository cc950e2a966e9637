"""The prompt writer: one shared prefix and one suffix per item, as token ids. Pure; knows no engine.

prefix = [instruction | query | chunk], byte-identical for every item of a request, so its keys and values are computed
once. suffix = [item | answer marker]; the label is the next token (label first, 2508.12365 section on post-CoT).
Fields are encoded one by one and joined as ids, so that a field can neither merge with a marker nor forge one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.errors import CheckpointError, PromptTooLongError, UnreadableQueryError
from models.manifest import SHARED_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.manifest import FieldName, Manifest, Segment
    from models.tokenizer import EncodedField, FieldTokenizer


@dataclass(frozen=True, slots=True)
class Item:
    """The judged text of one item; empty fields are left out of the prompt."""

    title: str
    brand: str = ""
    category: str = ""
    attributes: str = ""
    description: str = ""

    def field(self, name: str) -> str:
        """Text of a template field."""
        return str(getattr(self, name))


@dataclass(frozen=True, slots=True)
class Part:
    """Token ids of a prefix or a suffix, and what happened to its fields."""

    ids: tuple[int, ...]
    truncated: tuple[str, ...]
    unrepresentable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request's prompts: `prefix.ids + suffixes[i].ids` is what the model reads for item i."""

    prefix: Part
    suffixes: tuple[Part, ...]

    @property
    def tokens(self) -> int:
        """Tokens to compute: prefix once, plus every suffix. The unit of admission."""
        return len(self.prefix.ids) + sum(len(s.ids) for s in self.suffixes)


class PromptWriter:
    """Writes prompts for one checkpoint."""

    def __init__(self, manifest: Manifest, tokenizer: FieldTokenizer) -> None:
        self._template = manifest.prompt
        self._tokenizer = tokenizer
        self._literals = {s.text: tokenizer.literal(s.text) for s in (*self._template.prefix, *self._template.suffix)}
        longest = sum(
            len(self._literals[s.text]) + (self._template.budgets[s.field] if s.field else 0)
            for s in (*self._template.prefix, *self._template.suffix)
        )
        if longest > manifest.max_tokens:
            raise CheckpointError(
                f"field budgets and literals add up to {longest} tokens, the model takes {manifest.max_tokens}"
            )
        self._item_fields = tuple(
            dict.fromkeys(s.field for s in self._template.suffix if s.field and s.field not in SHARED_FIELDS)
        )

    def write(self, query: str, chunk: str | None, items: Sequence[Item]) -> Prompt:
        """Write the prompts of one request.

        Args:
            query: not empty.
            chunk: external knowledge, or None.
            items: N items.

        Returns:
            Prompt with N suffixes.

        Raises:
            UnreadableQueryError: no token is left of the query.
        """
        shared = {"query": query, "chunk": chunk or ""}
        names = [f for f in shared if f in self._template.budgets]
        texts = [shared[f] for f in names]
        budgets = [self._template.budgets[f] for f in names]
        for item in items:
            texts += [item.field(f) for f in self._item_fields]
            budgets += [self._template.budgets[f] for f in self._item_fields]
        encoded = self._tokenizer.fields(texts, budgets)
        shared_fields = dict(zip(names, encoded, strict=False))
        if not shared_fields["query"].ids:
            raise UnreadableQueryError("no character of the query is known to the judge's tokenizer; write it in words")
        prefix = self._join(self._template.prefix, shared_fields, report=True)
        suffixes = []
        for n in range(len(items)):
            start = len(names) + n * len(self._item_fields)
            own = dict(zip(self._item_fields, encoded[start : start + len(self._item_fields)], strict=True))
            suffixes.append(self._join(self._template.suffix, {**shared_fields, **own}, report=False))
        return Prompt(prefix=prefix, suffixes=tuple(suffixes))

    def _join(self, segments: Sequence[Segment], fields: Mapping[FieldName, EncodedField], *, report: bool) -> Part:
        ids: list[int] = []
        truncated: list[str] = []
        unrepresentable: list[str] = []
        for segment in segments:
            if segment.field is None:
                ids += self._literals[segment.text]
                continue
            field = fields[segment.field]
            if field.ids:
                ids += self._literals[segment.text]
                ids += field.ids
            if report or segment.field not in SHARED_FIELDS:  # an echoed query is reported once, by the prefix
                if field.truncated:
                    truncated.append(segment.field)
                if field.unrepresentable:
                    unrepresentable.append(segment.field)
        return Part(tuple(ids), tuple(truncated), tuple(unrepresentable))


def check_length(prompt: Prompt, limit: int) -> None:
    """Refuse a prompt that an engine with a smaller limit than the checkpoint's cannot take.

    Raises:
        PromptTooLongError: naming the longest pair and the limit.
    """
    longest = len(prompt.prefix.ids) + max((len(s.ids) for s in prompt.suffixes), default=0)
    if longest > limit:
        raise PromptTooLongError(f"prompt of {longest} tokens, the engine takes {limit}")
