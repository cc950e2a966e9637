"""Rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.engines.port import ItemStatus, Scores
from models.manifest import load_manifest
from models.prompt import Part, Prompt
from service.reply import Degraded
from service.rows import LEFT_OUT, OK, STATUSES, fields_of, prompt_tokens, row_type, scored, unscored

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = Prompt(
    Part((1, 2, 3), ("query",), ("chunk",)),
    (Part((4, 5), (), ()), Part((6,), ("description", "title"), ("title",)), Part((7,), (), ())),
)


def scores(mass: list[float] | None = None) -> Scores:
    """Three rows: one good, one expired, one that claims to be ok and is not finite."""
    logprobs = np.array([[-0.5, -1.0], [np.nan, np.nan], [-0.5, -np.inf]], np.float32)
    label_mass = None if mass is None else np.array(mass, np.float32)
    return Scores(logprobs, (ItemStatus.OK, ItemStatus.EXPIRED, ItemStatus.OK), label_mass, 3)


def test_a_row_holds_what_prompt_and_engine_say(checkpoint: Path) -> None:
    """What happened to the shared fields counts for every item, in the order of the prompt."""
    rows = scored(PROMPT, scores([0.5, 0.25, 1.0]))
    template = load_manifest(checkpoint).prompt
    assert rows["logprobs"][0].tolist() == [-0.5, -1.0]
    assert rows["label_mass"].tolist() == [0.5, 0.25, 1.0]
    assert [STATUSES[n] for n in rows["status"]] == ["ok", "expired", "failed"]
    assert [fields_of(n, template) for n in rows["truncated"].tolist()] == [
        ("query",),
        ("query", "title", "description"),
        ("query",),
    ]
    assert fields_of(int(rows["unrepresentable"][1]), template) == ("chunk", "title")
    assert np.isnan(scored(PROMPT, scores())["label_mass"]).all()


def test_tokens_count_the_prefix_once() -> None:
    """The same for any mixture of rows, and nothing for what was never written."""
    rows = scored(PROMPT, scores())
    assert prompt_tokens(rows) == PROMPT.tokens == 7
    assert prompt_tokens(np.concatenate([rows, unscored(5, 2, ItemStatus.EXPIRED)])) == 7
    assert prompt_tokens(unscored(2, 2, ItemStatus.FAILED)) == 0


def test_a_row_without_scores_is_never_ok() -> None:
    """Its numbers are NaN, so that nothing could come of them by mistake."""
    rows = unscored(3, 4, ItemStatus.FAILED)
    assert (rows["status"] != OK).all()
    assert np.isnan(rows["logprobs"]).all()
    assert row_type(4).itemsize == 32


def test_a_row_says_why_it_was_left_out() -> None:
    """One that was late, and one that was not even tried, are not the same."""
    assert [LEFT_OUT[row] for row in unscored(1, 4, ItemStatus.EXPIRED)["left_out"]] == [None]
    rows = unscored(2, 4, ItemStatus.EXPIRED, Degraded.CACHE_ONLY)
    assert [LEFT_OUT[row] for row in rows["left_out"]] == [Degraded.CACHE_ONLY] * 2
    assert not scored(PROMPT, scores())["left_out"].any()
