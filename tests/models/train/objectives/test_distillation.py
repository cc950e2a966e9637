"""Soft labels and prototypes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.train.objectives.distillation import prototype_targets, soft_label_loss, tempered


def test_loss() -> None:
    """KL of (3/4, 1/4) from (1/2, 1/2): 0.75 ln 1.5 + 0.25 ln 0.5; equal distributions give 0."""
    logits = torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert soft_label_loss(logits, torch.tensor([[0.75, 0.25]])).item() == pytest.approx(expected)
    assert soft_label_loss(logits, torch.tensor([[0.5, 0.5]])).item() == pytest.approx(0, abs=1e-7)


def test_temperature() -> None:
    """At T = 2 the student's logits are halved and the loss is four times the divergence."""
    logits, targets = torch.tensor([[2 * math.log(3), 0.0]]), torch.tensor([[0.5, 0.5]])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert soft_label_loss(logits, targets, 2.0).item() == pytest.approx(4 * expected, rel=1e-5)


def test_gradient() -> None:
    """The gradient is the loss's."""
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.rand(3, 4, dtype=torch.float64).softmax(-1)
    assert torch.autograd.gradcheck(lambda x: soft_label_loss(x, targets, 2.0), (logits,))


def test_tempered() -> None:
    """At T = 2, (0.8, 0.2) becomes (2/3, 1/3)."""
    assert tempered(np.array([[0.8, 0.2]]), 2.0)[0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_sure_labels_stay() -> None:
    """One-hot rows do not move, and strength 0 changes nothing."""
    rows, domains = np.eye(4), np.array([0, 1, 0, 1])
    assert prototype_targets(rows, domains, strength=1.0) == pytest.approx(rows)
    doubtful = np.full((2, 4), 0.25)
    assert prototype_targets(doubtful, np.array([0, 1]), strength=0.0) is doubtful


def test_doubtful_labels_move() -> None:
    """One domain, rows (0.6, 0.4) and (0.9, 0.1): the prototype is their mean, and doubt decides how far each moves."""
    rows = np.array([[0.6, 0.4], [0.9, 0.1]])
    found = prototype_targets(rows, np.array([0, 0]), strength=0.5)
    weight = 0.5 * -(0.6 * math.log(0.6) + 0.4 * math.log(0.4)) / math.log(2)
    assert found[0, 0] == pytest.approx((1 - weight) * 0.6 + weight * 0.75)
    assert found.sum(-1) == pytest.approx([1, 1])
