"""DyKnow's advantage scaling, worked out by hand from 2510.11122 section 2.3."""

from __future__ import annotations

import pytest
import torch

from models.train.objectives.posterior import (
    accuracy_gap,
    scaling,
    transferred_objective,
    transferred_weights,
    union_advantages,
)


def test_scaling() -> None:
    """The values that the paper's formula gives for gaps of -1, -0.5, 0, 0.5 and 1."""
    alpha, beta = scaling(torch.tensor([-1.0, -0.5, 0, 0.5, 1]))
    assert beta.tolist() == pytest.approx([0.0719, 0.4768, 2.0, 3.5232, 3.9281], abs=1e-3)
    assert alpha.tolist() == pytest.approx([1.39, 0.2097, 0.05, 0.0284, 0.0255], abs=1e-3)


def test_gap() -> None:
    """Per-pair gaps 0.5 and -0.5 in groups of 4 shrink half-way to the batch's 0."""
    without = torch.tensor([[0.0, 0, 1, 1], [1, 1, 1, 1]])
    with_context = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0]])
    assert accuracy_gap(without, with_context).tolist() == pytest.approx([0.25, -0.25])


def test_union() -> None:
    """No-context rewards 1, 0 among 1, 0, 1, 1: mean 3/4, sample deviation 1/2."""
    found = union_advantages(torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 1]]))
    assert found[0].tolist() == pytest.approx([0.5, -1.5], abs=1e-3)


def test_context_helps() -> None:
    """A gap of +1: the wrong answer is pushed down (3.93 * -1.5, clamped to -2), the right one hardly imitated."""
    found = transferred_weights(torch.tensor([[1.0, 0]]), torch.tensor([[1.0, 1]]), torch.tensor([1.0]))
    assert found[0].tolist() == pytest.approx([0.0255 * 0.5, -2.0], abs=1e-3)


def test_context_hurts() -> None:
    """A gap of -1: the right answer is imitated (1.39 * 1.5, clamped to 2), the wrong one hardly pushed (0.072)."""
    rewards = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 0]])
    found = transferred_weights(*rewards, torch.tensor([-1.0]))
    assert found[0].tolist() == pytest.approx([2.0, -0.0719 * 0.5], abs=2e-3)
    assert not found.requires_grad


def test_objective() -> None:
    """Raw probabilities: (0.5 + 0.25) / 2 * 2 and 0.8 * -1, averaged over two answers."""
    log_probs = torch.tensor([[0.5, 0.25], [0.8, 0.1]]).log()
    mask = torch.tensor([[1.0, 1], [1, 0]])
    found = transferred_objective(log_probs, mask, torch.tensor([2.0, -1.0]))
    assert found.item() == pytest.approx((0.75 - 0.8) / 2)


def test_gradient() -> None:
    """The gradient is the objective's."""
    log_probs = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    mask, weights = torch.tensor([[1.0, 1, 1], [1, 0, 0]], dtype=torch.float64), torch.tensor([1.5, -0.5])
    assert torch.autograd.gradcheck(lambda x: transferred_objective(x, mask, weights.double()), (log_probs,))
