"""SRPO's step rewards, weights, token advantages and filters."""

from __future__ import annotations

import pytest
import torch

from models.train.objectives.steps import (
    curriculum_stage,
    diverse,
    entropy_floor,
    step_advantages,
    step_reward,
    step_weights,
    token_advantages,
)


def test_verifier_first() -> None:
    """The verifier overrules the judge; the judge speaks where gold is unknown; nobody speaking is 0."""
    assert step_reward(verified=True, judged=False) == 1
    assert step_reward(verified=False, judged=True) == -1
    assert step_reward(verified=None, judged=True) == 1
    assert step_reward(verified=None, judged=None) == 0


def test_step_advantages() -> None:
    """Each step is compared across the group: rewards 1, -1 have deviation sqrt 2; equal ones give 0."""
    found = step_advantages(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))
    assert found[:, 0].tolist() == pytest.approx([2**-0.5, -(2**-0.5)], abs=1e-3)
    assert found[:, 1].tolist() == [0, 0]


def test_weights() -> None:
    """First wrong step 2, what follows 0; right steps of a failing rollout 2, of a good one 1."""
    rewards = torch.tensor([[1.0, -1, 1, -1], [1, 0, 1, 1]])
    assert step_weights(rewards, torch.tensor([False, True])).tolist() == [[2, 2, 0, 0], [1, 1, 1, 1]]


def test_tokens() -> None:
    """The label has the outcome's advantage, a step's tokens half of it and half of the step's, times the weight."""
    spans = torch.tensor([[0, 1, 1, 2], [0, 1, 2, 2]])
    found = token_advantages(
        outcome=torch.tensor([1.0, -1.0]),
        steps=torch.tensor([[0.5, -0.5], [0.2, 0.4]]),
        weights=torch.tensor([[1.0, 2.0], [2.0, 0.0]]),
        spans=spans,
        share=torch.tensor([0.5, 0.0]),
    )
    assert found[0].tolist() == pytest.approx([1.0, 0.75, 0.75, 0.5])
    assert found[1].tolist() == [-1, -1, -1, -1]


def test_diverse() -> None:
    """Two of the same words are kept when the cap is two, and another wording has a cluster of its own."""
    same, other = frozenset(["wants", "toner", "item", "is", "ink"]), frozenset({"match"})
    assert diverse([same, same, other, same], cap=2) == [True, True, True, False]


def test_curriculum() -> None:
    """Hard kinds come last whatever the confidence; doubtful pairs after sure ones."""
    assert [curriculum_stage(0.9, hard=False), curriculum_stage(0.5, hard=False)] == [0, 1]
    assert curriculum_stage(0.99, hard=True) == 2


def test_entropy_floor() -> None:
    """0.3 of the first value."""
    assert entropy_floor(2.0) == pytest.approx(0.6)
