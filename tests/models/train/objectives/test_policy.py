"""GRPO's reward, advantages, filter and balance."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.train.objectives.policy import (
    balanced_order,
    clamp,
    clipped_objective,
    dropped_out,
    group_advantages,
    kept_groups,
    outcome_reward,
    staged_order,
    variation,
)


def test_outcome() -> None:
    """Right 1, wrong 0, unreadable -1."""
    assert [outcome_reward(2, 2), outcome_reward(1, 2), outcome_reward(None, 2)] == [1, 0, -1]
    assert outcome_reward(2, 2, well_formed=False) == -1


def test_advantages() -> None:
    """Rewards 1, 0, 0, 1: mean 1/2, sample deviation sqrt(1/3); equal rewards give zeros."""
    found = group_advantages(torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1]]))
    assert found[0].tolist() == pytest.approx([0.8658, -0.8658, -0.8658, 0.8658], abs=1e-3)
    assert found[1].tolist() == [0, 0, 0, 0]


def test_clamp() -> None:
    """Advantages stay within 2."""
    assert clamp(torch.tensor([-3.0, 0.5, 2.5])).tolist() == [-2, 0.5, 2]


def test_kept() -> None:
    """Groups of ten: none right and nine right (0.9 * 10) are dropped, one and eight right are kept."""
    right = torch.tensor([[i < count for i in range(10)] for count in (0, 1, 8, 9, 10)])
    assert kept_groups(right, 0.9).tolist() == [False, True, True, False, False]
    assert kept_groups(right, 2.0).tolist() == [False, True, True, True, False]


def test_dropped_out() -> None:
    """A dropped group has no say, and what a kept one says does not depend on the others."""
    found = dropped_out(torch.ones(4, 2), torch.tensor([True, False, False, True]))
    assert found.tolist() == [[1, 1], [0, 0], [0, 0], [1, 1]]
    assert not dropped_out(torch.ones(2, 2), torch.tensor([False, False])).any()


def test_clipped() -> None:
    """Min of both terms: gain is capped at 1.2, loss is not."""
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    found = clipped_objective(ratio, torch.tensor([1.0, -1.0, 1.0, -1.0]))
    assert found.tolist() == pytest.approx([1.2, -1.5, 0.5, -0.8])


def test_clipped_gradient() -> None:
    """The gradient is the objective's, away from the corners."""
    ratio = torch.tensor([1.5, 1.1, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, -1.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r: clipped_objective(r, advantages), (ratio,))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 9))
def test_balance(tiers: list[int], seed: int) -> None:
    """Every run of as many rows as there are tiers holds each tier once, and no row comes twice."""
    kinds = len(set(tiers))
    order = balanced_order(tiers, seed)
    assert len(set(order)) == len(order) == kinds * min(tiers.count(t) for t in set(tiers))
    for start in range(0, len(order), kinds):
        assert len({tiers[n] for n in order[start : start + kinds]}) == kinds


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=60))
def test_stages_in_turns(rows: list[tuple[int, int]]) -> None:
    """Every row comes once, stages in order; a tier is at most one row ahead of one that has rows left."""
    stages, tiers = [s for s, _ in rows], [t for _, t in rows]
    order = staged_order(stages, tiers)
    assert sorted(order) == list(range(len(rows)))
    assert [stages[n] for n in order] == sorted(stages)
    for place in range(len(order)):
        left = Counter(rows[n] for n in order[place:])
        done = Counter(rows[n] for n in order[:place])
        for stage, tier in left:
            assert all(done[stage, other] <= done[stage, tier] + 1 for other in range(4))


def test_variation() -> None:
    """Counts 3, 1, 0, 0: mean 1, deviation sqrt(1.5)."""
    assert variation([0, 0, 0, 1], 4) == pytest.approx(1.5**0.5)
    assert variation([0, 1, 2, 3], 4) == 0
