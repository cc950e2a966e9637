"""The SFT loss against numbers worked out by hand, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from models.train.objectives.supervised import label_first_loss

LABELS = torch.tensor([[True, False, False], [True, False, False]])
RATIONALE = torch.tensor([[False, True, True], [False, True, False]])


def test_two_means() -> None:
    """Label and rationale tokens are averaged apart: (0.5 + 1.5) / 2 + 0.1 * (1 + 2 + 3) / 3."""
    log_probs = -torch.tensor([[0.5, 1.0, 2.0], [1.5, 3.0, 99.0]])
    loss = label_first_loss(log_probs, LABELS, RATIONALE, rationale_weight=0.1)
    assert loss.item() == pytest.approx(1.0 + 0.1 * 2.0)


def test_no_rationale() -> None:
    """Rows without a rationale leave the label's loss, and no division by zero."""
    log_probs = torch.full((2, 3), -math.log(4))
    loss = label_first_loss(log_probs, LABELS, torch.zeros_like(RATIONALE), rationale_weight=1.0)
    assert loss.item() == pytest.approx(math.log(4))


def test_gradient() -> None:
    """The gradient is the loss's."""
    log_probs = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: label_first_loss(x, LABELS, RATIONALE, rationale_weight=0.3), (log_probs,)
    )
