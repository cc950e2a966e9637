"""Tests of a judge's figures as plain functions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.evaluation.figures import measure, rule_consistency, share_of
from models.rationale import AttributeVerdict, CategoryVerdict, ContextUse, Rationale, render

if TYPE_CHECKING:
    from models.evaluation.pairs import LabelledPair
    from models.evaluation.scoring import Judge

SAID = Rationale(CategoryVerdict.MATCH, (("brand", AttributeVerdict.OK),), ContextUse.IGNORE, "case")


async def test_two_judges_on_the_same_pairs_share_resamples(judge: Judge, pairs: list[LabelledPair]) -> None:
    """Measured twice, the same judge gives the same draws: one minus the other is zero in every resample."""
    first, second = [await measure(judge, pairs, resamples=50) for _ in range(2)]
    assert {"ndcg@10", "macro_f1", "macro_f1_argmax", "calibration_error", "f1 3-Related"} <= first.draws.keys()
    gap = first.draws["ndcg@10"] - second.draws["ndcg@10"]
    assert not gap.samples.any()
    assert first.scored.logprobs.shape == (len(pairs), 4)


async def test_a_rationale_is_held_against_its_own_tier(judge: Judge, engine: Any, pairs: list[LabelledPair]) -> None:
    """Verdicts that imply Excellent are consistent with Excellent alone, be the pair what it may."""
    found = await measure(judge, pairs, resamples=10)
    longer = judge.manifest.rationale.model_copy(update={"max_tokens": 64})
    talking = replace(judge, manifest=judge.manifest.model_copy(update={"rationale": longer}))
    engine.rationale = judge.tokenizer.literal(render(SAID, judge.manifest.rationale))
    values = await rule_consistency(talking, pairs, found.judged)
    np.testing.assert_array_equal(values == 1.0, found.judged.verdicts.tiers == 0)
    assert not np.isnan(values).any()
    assert share_of(values)(np.ones(len(pairs))) == pytest.approx(float((found.judged.verdicts.tiers == 0).mean()))


async def test_only_a_sample_is_decoded(judge: Judge, pairs: list[LabelledPair]) -> None:
    """Pairs beyond the limit are left out, not counted wrong; what breaks the schema is counted wrong."""
    found = await measure(judge, pairs, resamples=10)
    values = await rule_consistency(judge, pairs, found.judged, limit=5)
    assert int((values == 0.0).sum()) == 5
    assert int(np.isnan(values).sum()) == len(pairs) - 5


async def test_an_engine_that_cannot_decode_has_no_consistency(
    judge: Judge, engine: Any, pairs: list[LabelledPair]
) -> None:
    """Nothing known is NaN, not zero."""
    found = await measure(judge, pairs, resamples=10)
    engine.decodes = False
    assert np.isnan(await rule_consistency(judge, pairs, found.judged)).all()
