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
    from collections.abc import Collection, Mapping, Sequence

    from models.manifest import FieldName, Manifest
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
        self._prefix, self._suffix = (
            tuple((tokenizer.literal(segment.text), segment.field) for segment in segments)
            for segments in (self._template.prefix, self._template.suffix)
        )
        longest = sum(
            len(literal) + (self._template.budgets[field] if field else 0)
            for literal, field in (*self._prefix, *self._suffix)
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
        for item in items:
            texts += [getattr(item, f) for f in self._item_fields]
        budgets = [self._template.budgets[f] for f in (*names, *self._item_fields * len(items))]
        encoded = iter(self._tokenizer.fields(texts, budgets))
        fields = dict(zip(names, encoded, strict=False))
        if not fields["query"].ids:
            raise UnreadableQueryError("no character of the query is known to the judge's tokenizer; write it in words")
        prefix = _join(self._prefix, fields, SHARED_FIELDS)
        suffixes = []
        for _ in items:
            fields.update(zip(self._item_fields, encoded, strict=False))
            # A query that the suffix repeats is reported once, by the prefix.
            suffixes.append(_join(self._suffix, fields, self._item_fields))
        return Prompt(prefix=prefix, suffixes=tuple(suffixes))


def _join(
    segments: Sequence[tuple[tuple[int, ...], FieldName | None]],
    fields: Mapping[FieldName, EncodedField],
    reported: Collection[str],
) -> Part:
    """One part of the prompt from its literals and fields, with a report of some of the fields."""
    ids: list[int] = []
    truncated: list[str] = []
    unrepresentable: list[str] = []
    for literal, name in segments:
        if name is None:
            ids += literal
            continue
        own, cut, unknown = fields[name]
        if own:
            ids += literal
            ids += own
        if cut and name in reported:
            truncated.append(name)
        if unknown and name in reported:
            unrepresentable.append(name)
    return Part(tuple(ids), tuple(truncated), tuple(unrepresentable))


def check_length(prompt: Prompt, limit: int) -> None:
    """Refuse a prompt that an engine with a smaller limit than the checkpoint's cannot take.

    Raises:
        PromptTooLongError: naming the longest pair and the limit.
    """
    longest = len(prompt.prefix.ids) + max((len(s.ids) for s in prompt.suffixes), default=0)
    if longest > limit:
        raise PromptTooLongError(f"prompt of {longest} tokens, the engine takes {limit}")
