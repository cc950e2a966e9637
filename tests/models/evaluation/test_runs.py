"""Tests of the measurements from pairs to report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.evaluation import runs
from models.evaluation.compare import side_by_side
from models.evaluation.pairs import LabelledPair, Sample
from models.prompt import Item, PromptWriter

if TYPE_CHECKING:
    from models.evaluation.reports import Data
    from models.evaluation.scoring import Judge

RESAMPLES = 100


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches, but that must add up."""
    assert stage
    assert 0 <= done <= total


def data(pairs: list[LabelledPair]) -> Data:
    """What the pairs are."""
    return runs.data_of("pairs.jsonl", "0" * 64, pairs, 4)


async def test_an_evaluation_holds_every_figure(judge: Judge, pairs: list[LabelledPair]) -> None:
    """Figures of judge and baselines on the same pairs, paired differences, and what the plots need."""
    rankings: dict[str, Any] = {"reversed": -np.arange(len(pairs), dtype=np.float64), "absent": "needs an extra"}
    report = await runs.evaluate(judge, pairs, data(pairs), rankings, silent, index="v1", resamples=RESAMPLES)
    own, other, absent = report.systems
    assert own.name == "tiny"
    assert {"ndcg@10", "auc", "macro_f1", "macro_f1_argmax", "accuracy", "f1 3-Related"} <= own.figures.keys()
    assert "macro_f1" not in other.figures
    assert (absent.figures, absent.note) == ({}, "needs an extra")
    assert report.differences[0].figures.keys() == other.figures.keys()
    assert sum(map(sum, report.confusion)) == sum(map(sum, report.histograms)) == len(pairs)
    assert sum(b.pairs for b in report.reliability) == len(pairs)
    assert len(report.sweep) == 51
    assert report.subject.index == "v1"
    assert report.data.tier_counts == (8, 8, 8, 8)


async def test_the_overlap_engine_ranks_as_its_scores_say(judge: Judge, pairs: list[LabelledPair]) -> None:
    """Tier by tier the confusion is what word overlap gives: rows with both words are Excellent."""
    report = await runs.evaluate(judge, pairs, data(pairs), {}, silent, resamples=RESAMPLES)
    assert report.confusion[0] == (8, 0, 0, 0)
    assert report.confusion[1] == (8, 0, 0, 0)
    assert report.confusion[3] == (0, 0, 0, 8)
    auc = report.systems[0].figures["auc"]
    assert auc.value == 1.0
    assert [w.truth for w in report.worst[:8]] == ["3-Related"] * 8


async def test_comparing_a_judge_with_itself_finds_nothing(judge: Judge, pairs: list[LabelledPair]) -> None:
    """No flip, no difference, every page the same."""
    report = await runs.compare(judge, judge, (pairs, pairs), data(pairs), silent, resamples=RESAMPLES)
    assert report.flips == ()
    assert report.flip_counts == {"better": 0, "worse": 0, "neither": 0, "band": 0}
    assert report.good_same_bad == (0, 8, 0)
    assert report.gsb.value == 0.0
    assert all(e.value == 0.0 and not e.excludes_zero for e in report.difference.figures.values())


async def test_flips_come_worst_first(judge: Judge, pairs: list[LabelledPair]) -> None:
    """B reads other titles for two items: the one it made worse by three tiers stands before the one it mended."""
    worse = replace(pairs[0], item=Item("v u"))
    mended = replace(pairs[5], item=Item("laptop w"))
    changed = [worse, *pairs[1:5], mended, *pairs[6:]]
    report = await runs.compare(judge, judge, (pairs, changed), data(pairs), silent, resamples=RESAMPLES)
    assert [f.harm for f in report.flips] == [3, -1]
    assert (report.flips[0].a.predicted, report.flips[0].b.predicted) == ("4-Excellent", "1-Irrelevant")
    assert report.flip_counts["worse"] == 1
    assert report.flip_counts["band"] == 1  # Good to Bad; Excellent to Related stays Good
    assert report.difference.figures["accuracy"].value == 0.0  # one lost, one won
    kappa = report.difference.figures["quadratic_kappa"].value
    assert kappa is not None
    assert kappa < 0  # but the loss is the farther one


def test_side_by_side_counts_pages() -> None:
    """Better, worse and the same first page, query by query; a query without positives is the same."""
    item = Item("x")
    rows = [(q, t) for q in ("a", "b", "c", "d") for t in (0, 3)]
    pairs = [LabelledPair(q, str(t), item, 3 if q == "d" else t, q) for q, t in rows]
    sample = Sample.of(pairs, 4)
    first = np.array([1, 0, 0, 1, 1, 0, 1, 0], dtype=np.float64)
    second = np.array([1, 0, 1, 0, 0, 1, 0, 1], dtype=np.float64)
    verdict, statistic = side_by_side(sample, first, second)
    np.testing.assert_array_equal(verdict, [0, 1, -1, 0])
    assert statistic(np.ones(8)) == 0.0
    assert statistic(np.array([1, 1, 3, 3, 0, 0, 0, 0], dtype=np.float64)) == 0.75


def many(pairs: list[LabelledPair]) -> list[LabelledPair]:
    """Enough pairs of each tier to calibrate on, Related ones with a third of the query's words."""
    result = []
    for copy in range(4):
        for n, p in enumerate(pairs):
            query = f"{p.query} {'mnop'[copy]}"
            words = query.split()
            title = (query, f"{words[0]} {words[1]} t", f"{words[0]} t", "t s r")[n % 4]
            result.append(LabelledPair(query, str(n), Item(title), n % 4, query))
    return result


async def test_a_calibration_chooses_reports_and_does_not_touch(judge: Judge, pairs: list[LabelledPair]) -> None:
    """The choice is at least as good as the setting in use; nothing is written here."""
    own = many(pairs)
    report = await runs.calibrate(judge, own, data(own), silent, human=(own, data(own)))
    assert report.chosen.macro_f1 >= report.current.macro_f1
    assert report.chosen.log_loss <= report.current.log_loss
    assert not report.written
    assert report.cross_fit is not None
    assert len(report.cross_fit.betas) == 5
    assert report.cross_fit.macro_f1_at_current == pytest.approx(report.current.macro_f1)


async def test_a_chunk_belongs_to_its_pair(judge: Judge, pairs: list[LabelledPair]) -> None:
    """With a chunk in the prefix the same engine reads more of the query there; the report counts such pairs."""
    given = [replace(p, chunk="case") for p in pairs]
    assert data(given).with_chunk == len(pairs)
    prompts = {PromptWriter(judge.manifest, judge.tokenizer).write(p.query, p.chunk, [p.item]).prefix for p in given}
    assert len(prompts) == 8
