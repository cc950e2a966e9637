"""DPO's loss, pass@n and the choice of pairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.train.objectives.preference import PairChoice, choose_pair, dpo_loss, pass_at


def test_loss() -> None:
    """Margins of 2 and 0 at beta 0.5: mean of -log sigmoid(1) and log 2."""
    chosen, rejected = torch.tensor([-1.0, -2.0]), torch.tensor([-4.0, -2.0])
    loss = dpo_loss(chosen, rejected, torch.tensor([-2.0, -3.0]), torch.tensor([-3.0, -3.0]), beta=0.5)
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(2)) / 2)


def test_gradient() -> None:
    """The gradient is the loss's."""
    inputs = [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda a, b, c, d: dpo_loss(a, b, c, d, 0.1), inputs)


def test_pass_at() -> None:
    """Two right of four: pass@1 is 1/2, pass@2 is 1 - C(2,2)/C(4,2) = 5/6, pass@3 is certain."""
    assert pass_at(4, 2, 1) == pytest.approx(0.5)
    assert pass_at(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at(4, 2, 3) == 1
    assert pass_at(4, 0, 4) == 0
    with pytest.raises(ValueError, match="at least 5"):
        pass_at(4, 2, 5)


@given(st.integers(1, 12), st.data())
def test_pass_at_rises(samples: int, data: st.DataObject) -> None:
    """More tries never pass less."""
    right = data.draw(st.integers(0, samples))
    values = [pass_at(samples, right, n) for n in range(1, samples + 1)]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("right", "choice"),
    [
        ([True, False, False, True], PairChoice(3, 2)),
        ([False, False, False, False], PairChoice(None, 3)),
        ([True, True, True, True], None),
    ],
)
def test_choice(right: list[bool], choice: PairChoice | None) -> None:
    """Own right against own likeliest wrong; the teacher's when none is right; nothing when all are."""
    assert choose_pair(right, [-3.0, -2.0, -1.5, -1.0]) == choice
