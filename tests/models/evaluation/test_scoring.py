"""Tests of scoring pairs through the port."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.errors import EngineError
from models.evaluation.pairs import LabelledPair
from models.evaluation.scoring import ITEMS_PER_CALL, rationale_of, score_pairs
from models.prompt import Item

if TYPE_CHECKING:
    from typing import Any

    from models.evaluation.scoring import Judge


async def test_scores_come_in_the_order_of_the_pairs(judge: Judge, pairs: list[LabelledPair]) -> None:
    """Grouping by query is invisible: any order of pairs gives each its own score."""
    straight = await score_pairs(judge, pairs)
    order = np.random.default_rng(0).permutation(len(pairs))
    shuffled = await score_pairs(judge, [pairs[i] for i in order])
    np.testing.assert_array_equal(straight.logprobs[order], shuffled.logprobs)
    assert straight.logprobs.dtype == np.float32
    assert straight.tokens == shuffled.tokens


async def test_a_prefix_is_computed_once_for_all_its_items(
    judge: Judge, engine: Any, pairs: list[LabelledPair]
) -> None:
    """One call per query, and one more where a chunk makes another prefix."""
    await score_pairs(judge, pairs)
    assert sorted(count for _, count in engine.calls) == [4] * 8
    engine.calls.clear()
    await score_pairs(judge, [replace(pairs[0], chunk="a chunk"), *pairs[1:4]])
    assert sorted(count for _, count in engine.calls) == [1, 3]


async def test_a_long_list_is_cut_into_calls(judge: Judge, engine: Any) -> None:
    """No call holds more items than a service would take."""
    done: list[int] = []
    many = [LabelledPair("phone", str(n), Item(f"phone {n}"), 0, "c") for n in range(ITEMS_PER_CALL + 5)]
    await score_pairs(judge, many, done.append)
    assert sorted(count for _, count in engine.calls) == [5, ITEMS_PER_CALL]
    assert sum(done) == len(many)


async def test_cut_fields_are_counted(judge: Judge, pairs: list[LabelledPair]) -> None:
    """A pair whose field did not fit is told, once."""
    long = replace(pairs[0], item=Item("phone " * 100))
    assert (await score_pairs(judge, [long, pairs[1]])).truncated == 1
    assert (await score_pairs(judge, [replace(p, chunk="case " * 100) for p in pairs[:3]])).truncated == 3


async def test_a_pair_without_a_score_stops_the_evaluation(
    judge: Judge, engine: Any, pairs: list[LabelledPair]
) -> None:
    """Figures over the pairs that happened to work would be wrong ones."""
    [token] = judge.tokenizer.literal("laptop")
    engine.fails_on = frozenset({token})
    with pytest.raises(EngineError, match="laptop"):
        await score_pairs(judge, pairs)


async def test_a_rationale_is_readable(judge: Judge, engine: Any, pairs: list[LabelledPair]) -> None:
    """Parsed fields, one a line; raw text when the schema is broken; nothing when the engine cannot decode."""
    text = "[unused9] match [unused10] none [unused11] ignore [unused12] case"
    engine.rationale = judge.tokenizer.literal(text.replace("match", "m").replace("ignore", "i").replace("none", "n"))
    assert (await rationale_of(judge, pairs[0], 0)).startswith("(not in the schema)")
    engine.rationale = ()
    assert await rationale_of(judge, pairs[0], 0) == "(not in the schema) "
    engine.decodes = False
    assert await rationale_of(judge, pairs[0], 0) == ""
