"""Answers: written and read back, hints that no text can forge, steps by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from models.prompt import PromptWriter
from models.tokenizer import FieldTokenizer
from models.train.answers import AnswerWriter, gold_rationale
from models.train.data.schema import parse_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.manifest import Manifest

ROW: dict[str, Any] = {
    "query": "phone case",
    "title": "laptop case",
    "tier": "2-Mismatch",
    "verdicts": {"category": "mismatch", "attributes": {"hd-type": "violated", "brand": "ok"}},
    "reason": "a laptop",
    "context": "phones",
    "context_use": "partial",
}


@pytest.fixture(scope="module")
def writer(wordpiece: Path, manifest: Manifest) -> Callable[[int], AnswerWriter]:
    tokenizer = FieldTokenizer(wordpiece)
    return lambda limit: AnswerWriter(manifest, tokenizer, PromptWriter(manifest, tokenizer), rationale_tokens=limit)


def test_round_trip(writer: Callable[[int], AnswerWriter]) -> None:
    """What is written is read back: tier, verdicts, use of the context, reason."""
    answers, row = writer(64), parse_row("here", ROW)
    said = answers.said(answers.gold(row))
    assert said.tier == answers.tier(row) == 2
    assert said.rationale is not None
    gold = answers.gold_steps(row)
    assert said.rationale.category is gold.category
    assert dict(said.rationale.attributes) == gold.attributes
    assert said.rationale.context == "partial"
    assert said.rationale.reason == "a laptop"


@pytest.mark.parametrize("limit", [28, 36, 40, 48])
def test_short_limits_stay_readable(writer: Callable[[int], AnswerWriter], limit: int) -> None:
    """A tight limit drops reason and attributes, never the schema."""
    answers, row = writer(limit), parse_row("here", ROW)
    ids = answers.gold(row)
    assert len(ids) <= answers.longest_answer
    assert answers.said(ids).rationale is not None


def test_unreadable(writer: Callable[[int], AnswerWriter]) -> None:
    """No label, no end, or a broken schema: what is missing is None."""
    answers = writer(64)
    ids = answers.gold(parse_row("here", ROW))
    assert answers.said([]).tier is None
    assert answers.said([9, *ids]).tier is None
    assert answers.said(ids[:-1]).rationale is None
    assert answers.said([ids[0], ids[-1]]).rationale is None


def test_spans(writer: Callable[[int], AnswerWriter]) -> None:
    """The label is step 0, and each field's tokens, marker first, are its step's."""
    answers = writer(64)
    ids = answers.gold(parse_row("here", ROW))
    spans = answers.spans(ids)
    assert spans[0] == 0
    assert spans[1] == 1
    assert spans[-1] == 4
    assert spans == sorted(spans)
    assert set(spans) == {0, 1, 2, 3, 4}


def test_text_forges_nothing(writer: Callable[[int], AnswerWriter], manifest: Manifest) -> None:
    """A reason that spells markers and labels becomes plain text."""
    answers = writer(64)
    row = parse_row("here", {**ROW, "reason": "[unused9] [unused20]", "verdicts": {"category": "match"}})
    ids = answers.gold(row)
    assert sum(token in manifest.label_token_ids for token in ids) == 1
    assert max(answers.spans(ids)) == 4


def test_hints(writer: Callable[[int], AnswerWriter], manifest: Manifest) -> None:
    """A hint stands before the answer marker; level 1 tells the steps, level 2 the label too."""
    answers, row = writer(64), parse_row("here", ROW)
    plain, one, two = answers.prompt(row), answers.hinted(row, 1), answers.hinted(row, 2)
    assert plain[-1] == one[-1] == two[-1]
    assert one[: len(plain) - 1] == plain[:-1]
    assert manifest.label_token_ids[2] not in one
    assert two[-2] == manifest.label_token_ids[2]


def test_no_verdicts(writer: Callable[[int], AnswerWriter]) -> None:
    """Without a known category there is no rationale to learn, only the label."""
    row = parse_row("here", {"query": "phone", "title": "phone", "tier": "4"})
    assert gold_rationale(row) is None
    assert len(writer(64).gold(row)) == 1
