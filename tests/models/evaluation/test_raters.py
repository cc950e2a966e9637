"""Tests of the human raters' line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.catalogue import Product
from models.errors import DataError
from models.evaluation import page, runs, terminal
from models.evaluation.pairs import LabelledPair, read_judgements
from models.evaluation.raters import FINAL, OTHERS, rater_draws
from models.prompt import Item

if TYPE_CHECKING:
    from pathlib import Path

    from models.evaluation.scoring import Judge
    from models.manifest import Manifest

NAN = float("nan")


def silent(stage: str, done: int, total: int) -> None:
    """Nobody watches."""
    assert stage
    assert 0 <= done <= total


def rated(*raters: tuple[float, ...]) -> list[LabelledPair]:
    """Two queries, pairs in turn."""
    return [LabelledPair(f"q{n % 2}", str(n), Item("x"), 0, f"q{n % 2}", raters=r) for n, r in enumerate(raters)]


def test_raters_who_agree_are_perfect(manifest: Manifest) -> None:
    """Every figure is 1 where everybody says the same."""
    pairs = rated((3, 3, 3), (3, 3, 3), (0, 0, 0), (1, 1, 1), (2, 2, NAN), (0, 0, 0))
    found = rater_draws(pairs, manifest, OTHERS, resamples=20, progress=silent)
    assert found is not None
    draws, counted = found
    assert counted == 6
    for name in ("ndcg@10", "auc", "macro_f1", "accuracy", "quadratic_kappa"):
        assert draws[name].value == pytest.approx(1.0), name


def test_one_is_held_against_the_mean_of_the_others(manifest: Manifest) -> None:
    """Worked out by hand: truths are the rounded means of the two others, a half goes up."""
    pairs = rated((3, 2, 2), (0, 0, 0))
    found = rater_draws(pairs, manifest, OTHERS, resamples=5, progress=silent)
    assert found is not None
    # Turns: 3 against 2 (wrong), 2 against 2.5 -> 3 (wrong), the same again; 0 against 0 is right each time.
    assert found[0]["accuracy"].value == pytest.approx(0.5)


def test_the_final_grade_is_the_judges_truth(manifest: Manifest) -> None:
    """Two of three turns agree with the final grade of the first pair, all with that of the second."""
    pairs = [replace(p, tier=t) for p, t in zip(rated((3, 2, 3), (0, 0, 0)), (0, 3), strict=True)]
    found = rater_draws(pairs, manifest, FINAL, resamples=5, progress=silent)
    assert found is not None
    assert found[0]["accuracy"].value == pytest.approx((1 + 0.5 + 1) / 3)


def test_pairs_of_one_rater_do_not_count(manifest: Manifest) -> None:
    """Nobody is held against themselves; without a second rater there is no line."""
    pairs = rated((3, NAN), (0, 0), (3, 3), (NAN, NAN))
    found = rater_draws(pairs, manifest, OTHERS, resamples=5, progress=silent)
    assert found is not None
    assert found[1] == 2
    assert rater_draws(rated((3,), (0,)), manifest, OTHERS, resamples=5, progress=silent) is None
    assert rater_draws(rated((), ()), manifest, OTHERS, resamples=5, progress=silent) is None


async def test_the_line_stands_beside_the_judge(judge: Judge, pairs: list[LabelledPair]) -> None:
    """In the report, the table and the page; no difference to it is taken, for its truth is another."""
    own = [replace(p, raters=(float(3 - p.tier), float(3 - p.tier), NAN)) for p in pairs]
    data = runs.data_of("j.csv", "0" * 64, own, 4)
    report = await runs.evaluate(judge, own, data, {"flat": np.zeros(len(own))}, silent, resamples=20)
    assert [s.name for s in report.systems] == ["tiny", "flat", OTHERS, FINAL]
    assert [d.second for d in report.differences] == ["flat"]
    human = report.systems[2]
    assert human.figures["ndcg@10"].value == pytest.approx(1.0)
    assert "32 pairs" in human.note
    assert "macro_f1_argmax" not in human.figures  # a person gives no probabilities
    assert OTHERS in page.render(report)
    assert terminal.render(report) is not None


def test_raters_are_read_from_their_columns(tmp_path: Path) -> None:
    """A cell may be empty; a column of means is no rater's; a grade that is none is refused with its column."""
    products = {"1": Product("1", "Phone"), "2": Product("2", "Case")}
    path = tmp_path / "judgements.csv"
    head = "query,product_id,rating,agent_1_rating,agent_2_rating,mean_rating"
    path.write_text(f"{head}\nphone,1,3,3.0,,2.5\nphone,2,0,,1,0.5\n")
    first, second = read_judgements(path, products, 4)
    assert first.raters == (3.0,)
    np.testing.assert_array_equal(second.raters, (NAN, 1.0))
    path.write_text(f"{head}\nphone,1,3,3.5,3,3\n")
    with pytest.raises(DataError, match=r"the grade '3\.5' of agent_1_rating"):
        read_judgements(path, products, 4)
