"""AGRL's reward and replay."""

from __future__ import annotations

import pytest

from models.rationale import AttributeVerdict as A
from models.rationale import CategoryVerdict as C
from models.rationale import ContextUse, Rationale
from models.train.objectives.shaping import (
    Gold,
    replacements,
    replay_threshold,
    rule_gate,
    shaped_reward,
)

GOOD = (True, True, False, False)


def said(category: C, **attributes: A) -> Rationale:
    return Rationale(category, tuple(attributes.items()), ContextUse.IGNORE, "")


def test_gate() -> None:
    """A tier that its own verdicts contradict, or no rationale at all, closes the gate."""
    assert rule_gate(0, said(C.MATCH, brand=A.OK))
    assert not rule_gate(1, said(C.MATCH, brand=A.OK))
    assert not rule_gate(0, None)
    assert not rule_gate(None, said(C.MATCH))


def test_all_right() -> None:
    """Tier, category and attributes right: 1."""
    gold = Gold(0, C.MATCH, {"brand": A.OK})
    assert shaped_reward(0, said(C.MATCH, brand=A.OK), gold, GOOD) == pytest.approx(1.0)


def test_partly_right() -> None:
    """Neighbouring tier on the Good side, category right, one of two attributes right: 0.6/4 + 0.2 + 0.1."""
    gold = Gold(0, C.MATCH, {"brand": A.OK, "colour": A.OK})
    found = shaped_reward(1, said(C.MATCH, brand=A.OK, colour=A.UNKNOWN), gold, GOOD)
    assert found == pytest.approx(0.15 + 0.2 + 0.1)


def test_across_the_line() -> None:
    """A neighbour on the other side of Good earns nothing for its tier; no attribute known: the category's counts."""
    gold = Gold(1, C.MATCH)
    assert shaped_reward(2, said(C.RELATED), gold, GOOD) == pytest.approx(0.0)
    assert shaped_reward(2, said(C.MATCH, colour=A.VIOLATED), gold, GOOD) == pytest.approx(0.4)


def test_only_a_tier_known() -> None:
    """Without step verdicts the tier's reward is the whole reward."""
    assert shaped_reward(3, said(C.MISMATCH), Gold(3), GOOD) == pytest.approx(1.0)


def test_closed_gate() -> None:
    """A right tier with contradicting verdicts earns -0.5."""
    assert shaped_reward(0, said(C.RELATED), Gold(0, C.RELATED), GOOD) == -0.5


def test_threshold() -> None:
    """Guidance is given below 0.25 at first, below 0.1 at last."""
    assert [replay_threshold(p) for p in (0, 0.5, 1, 2)] == pytest.approx([0.25, 0.175, 0.1, 0.1])


def test_replacements() -> None:
    """Right guided answers take the places of the worst, four at most, and one unguided answer stays."""
    rewards = [0.0, -0.5, 0.3, -0.5, 0.1]
    assert replacements(rewards, [True, False, True]) == [(1, 0), (3, 2)]
    assert len(replacements(rewards, [True] * 8)) == 4
    assert replacements([0.0, -0.5], [True] * 8) == [(1, 0)]
    assert replacements(rewards, [False] * 8) == []
    assert replacements(rewards, [True] * 8, limit=-1) == []
