"""Rows to token ids and back: the prompt, the answer to learn, and what a sampled answer says.

An answer is the label token, then the rationale's fields behind their markers, then the end token (2508.12365,
respond-then-think). Values are encoded like callers' text, so no teacher's sentence can hold a marker or a label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.errors import TrainingError
from models.rationale import ContextUse, Rationale, parse
from models.train.data.schema import tier_column
from models.train.objectives.shaping import Gold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.manifest import Manifest
    from models.prompt import PromptWriter
    from models.tokenizer import FieldTokenizer
    from models.train.data.schema import Row

_JUNK: Final = re.compile(r"\W+")
_REASON_TOKENS: Final = 20
_CLOSED: Final = 16  # more than any tokenizer needs for one of the schema's words


@dataclass(frozen=True, slots=True)
class Said:
    """What a sampled answer says.

    Attributes:
        tier: column, or None when the answer does not begin with a label.
        rationale: None when it breaks the schema or was cut off.
    """

    tier: int | None
    rationale: Rationale | None


class AnswerWriter:
    """Writes prompts and answers of one checkpoint, and reads answers.

    Args:
        manifest: labels, markers, template.
        tokenizer: of the checkpoint.
        writer: the prompt writer that serving uses.
        rationale_tokens: longest rationale, end token included.
    """

    def __init__(
        self, manifest: Manifest, tokenizer: FieldTokenizer, writer: PromptWriter, *, rationale_tokens: int
    ) -> None:
        self.manifest = manifest
        self._tokenizer = tokenizer
        self._writer = writer
        self._limit = min(rationale_tokens, manifest.rationale.max_tokens)
        markers = manifest.rationale
        names = (markers.category, markers.attributes, markers.context, markers.reason)
        self._markers = tuple(tokenizer.literal(text) for text in names)
        self._answer_marker = tokenizer.literal(manifest.prompt.suffix[-1].text)
        self._column = {token: n for n, token in enumerate(manifest.label_token_ids)}
        self.good = tuple(tier.band == "Good" for tier in manifest.tiers)

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer: the label and the rationale."""
        return 1 + self._limit

    def prompt(self, row: Row, *, context: bool = True) -> list[int]:
        """The ids that serving would send for this pair, with its chunk or without."""
        prompt = self._writer.write(row.query, row.context if context else None, [row.item.item()])
        return [*prompt.prefix.ids, *prompt.suffixes[0].ids]

    def hinted(self, row: Row, level: int) -> list[int]:
        """The prompt with gold guidance before the answer marker, for rollouts only (2510.08048, guided replay).

        Guidance stands between the rationale's own markers, which no text can produce, so a model that learns to use it
        learns nothing that a caller could write.

        Args:
            row: with gold.
            level: 1 for the step verdicts, 2 for the label too.
        """
        hint: list[int] = []
        if row.verdicts is not None and row.verdicts.category is not None:
            hint += [*self._markers[0], *self._value(str(row.verdicts.category), _CLOSED)]
            hint += [*self._markers[1], *self._value(_listed(row), 24)]
        if level > 1 or not hint:
            hint.append(self.manifest.label_token_ids[self.tier(row)])
        prompt = self.prompt(row)
        end = len(prompt) - len(self._answer_marker)
        return [*prompt[:end], *hint, *prompt[end:]]

    def answer(self, tier: int, rationale: Rationale | None) -> list[int]:
        """Label, rationale and end token.

        Where the rationale would be longer than the limit, its last attributes go, then the end of its reason; a field
        is never cut in the middle of a closed value.
        """
        label = [self.manifest.label_token_ids[tier]]
        if rationale is None:
            return label
        body = [*self._markers[0], *self._value(str(rationale.category), _CLOSED)]
        use = [*self._markers[2], *self._value(str(rationale.context), _CLOSED), *self._markers[3]]
        room = self._limit - len(body) - len(use) - 1
        body += [*self._markers[1], *self._attributes(rationale, room - len(self._markers[1])), *use]
        room = self._limit - len(body) - 1
        if room > 0 and rationale.reason:
            body += self._value(rationale.reason, min(room, _REASON_TOKENS))
        return [*label, *body, self.manifest.rationale.end_token_id]

    def _attributes(self, rationale: Rationale, room: int) -> tuple[int, ...]:
        """As many verdicts as fit, `none` where none does."""
        told = [f"{name} {verdict}" for name, verdict in rationale.attributes]
        for count in range(len(told), 0, -1):
            ids = self._value(", ".join(told[:count]), room + 1) if room > 0 else ()
            if 0 < len(ids) <= room:
                return ids
        return self._value("none", _CLOSED)

    def gold(self, row: Row) -> list[int]:
        """The answer to learn: the gold tier, with the rationale that the gold verdicts give, if there are any."""
        return self.answer(self.tier(row), gold_rationale(row))

    def tier(self, row: Row) -> int:
        """Gold tier column."""
        column = tier_column(row.tier or "", self.manifest.tiers)
        if column is None:
            raise TrainingError(f"the pair ({row.query!r}, {row.item.title!r}) has no tier of this checkpoint")
        return column

    def gold_steps(self, row: Row) -> Gold:
        """Gold tier and verdicts, attribute names in the form that `said` gives them."""
        verdicts = row.verdicts
        if verdicts is None:
            return Gold(self.tier(row))
        return Gold(self.tier(row), verdicts.category, {key(n): v for n, v in verdicts.attributes.items()})

    def said(self, ids: Sequence[int]) -> Said:
        """Read a sampled answer; attribute names lose everything but letters and digits, as tokenizers split names."""
        tier = self._column.get(ids[0]) if ids else None
        end = self.manifest.rationale.end_token_id
        if tier is None or end not in ids:
            return Said(tier, None)
        found = parse(self._tokenizer.decode(ids[1 : list(ids).index(end)]), self.manifest.rationale)
        if found is None:
            return Said(tier, None)
        attributes = tuple((key(name), verdict) for name, verdict in found.attributes)
        return Said(tier, Rationale(found.category, attributes, found.context, found.reason))

    def spans(self, ids: Sequence[int]) -> list[int]:
        """Which step each token belongs to: 0 for the label, 1 to 4 for the fields in their order, markers included."""
        step, spans = 0, []
        for at in range(len(ids)):
            if step < len(self._markers):
                marker = self._markers[step]
                step += tuple(ids[at : at + len(marker)]) == marker
            spans.append(step)
        return spans

    def _value(self, text: str, budget: int) -> tuple[int, ...]:
        return self._tokenizer.fields([f" {text}"], [budget])[0].ids


def key(name: str) -> str:
    """An attribute name as it is compared: letters and digits alone."""
    return _JUNK.sub("", name.lower())


def gold_rationale(row: Row) -> Rationale | None:
    """The rationale that a row's gold verdicts give; None where the category's is unknown."""
    if row.verdicts is None or row.verdicts.category is None:
        return None
    use = row.context_use if row.context and row.context_use else ContextUse.IGNORE
    return Rationale(row.verdicts.category, tuple(row.verdicts.attributes.items()), use, row.reason)


def _listed(row: Row) -> str:
    assert row.verdicts is not None  # noqa: S101 - the caller has looked
    return ", ".join(f"{name} {verdict}" for name, verdict in row.verdicts.attributes.items()) or "none"
