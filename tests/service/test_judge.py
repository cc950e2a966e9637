"""Judging."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.engines.port import ItemStatus, Scores
from models.manifest import load_manifest
from models.prompt import Item, Part, Prompt
from service.judge import best_first, verdicts
from service.request import Candidate
from service.rows import scored

if TYPE_CHECKING:
    from pathlib import Path

    from service.reply import ItemResult


def judged(checkpoint: Path, logprobs: list[list[float]], mass: list[float] | None = None) -> tuple[ItemResult, ...]:
    """Verdicts on rows of log-probabilities that all claim to be ok."""
    n = len(logprobs)
    scores = Scores(
        np.array(logprobs, dtype=np.float32),
        (ItemStatus.OK,) * n,
        None if mass is None else np.array(mass, dtype=np.float32),
    )
    part = Part((1,), (), ())
    candidates = tuple(Candidate(str(i), Item("t")) for i in range(n))
    return verdicts(load_manifest(checkpoint), candidates, scored(Prompt(part, (part,) * n), scores))


def test_a_row_that_is_not_finite_is_a_failure(checkpoint: Path) -> None:
    """A wrong score with status 200 is the worst bug: NaN and infinity never become a tier."""
    results = judged(checkpoint, [[0.0, np.nan, 0.0, 0.0], [np.inf, 0.0, 0.0, 0.0], [0.0, -9.0, -9.0, -9.0]])
    assert [r.status for r in results] == ["failed", "failed", "ok"]
    assert [r.tier for r in results] == [None, None, "4-Excellent"]


def test_the_mass_outside_the_labels_is_passed_on_where_the_engine_gives_it(checkpoint: Path) -> None:
    """It tells out-of-domain input from a confident verdict."""
    row = [0.0, -9.0, -9.0, -9.0]
    assert [r.label_mass for r in judged(checkpoint, [row, row], [0.25, 1.0])] == [0.25, 1.0]
    assert judged(checkpoint, [row])[0].label_mass is None


def test_the_numbers_are_those_of_the_tiers_module_rounded(checkpoint: Path) -> None:
    """Six digits of what beta and the labels make of the row."""
    probabilities = [0.4, 0.2, 0.3, 0.1]
    (result,) = judged(checkpoint, [np.log(probabilities).tolist()])
    assert result.probabilities is not None
    assert list(result.probabilities.values()) == pytest.approx(probabilities, abs=1e-6)
    assert result.tier == "3-Related"
    assert result.score == pytest.approx((3 * 0.4 + 2 * 0.2 + 0.3) / 3, abs=1e-6)
    assert result.margin == pytest.approx(0.1, abs=1e-6)


def test_ties_keep_the_order_of_the_request(checkpoint: Path) -> None:
    """The same request always comes back in the same order."""
    row = [0.0, -9.0, -9.0, -9.0]
    assert [r.index for r in best_first(judged(checkpoint, [row] * 5), 3)] == [0, 1, 2]
