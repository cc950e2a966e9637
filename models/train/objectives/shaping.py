"""TaoSR-AGRL: rule-aware reward shaping with a hard gate, and adaptive guided replay (arXiv 2510.08048).

Only the ideas are public (dense rewards for intermediate steps and rule adherence, a hard gate, guidance injected into
low-accuracy groups). Weights, thresholds and counts below are all PROPOSALs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.rationale import implied_tiers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.rationale import AttributeVerdict, CategoryVerdict, Rationale

GUIDED_SHARE: Final = 0.25  # of a batch, at most
GUIDED_KEPT: Final = 4  # correct guided answers of a group, at most


@dataclass(frozen=True, slots=True)
class Gold:
    """What is known of a pair: tier column (0 is best) and, where annotated, step verdicts."""

    tier: int
    category: CategoryVerdict | None = None
    attributes: Mapping[str, AttributeVerdict] | None = None


def rule_gate(tier: int | None, rationale: Rationale | None) -> bool:
    """`G`: the answer can be read and its tier is one that its own verdicts allow."""
    if tier is None or rationale is None:
        return False
    return tier in implied_tiers(rationale.category, dict(rationale.attributes))


def tier_reward(tier: int, gold: int, good: Sequence[bool]) -> float:
    """`r_y = 1[y' = y] + 0.25 * 1[|y' - y| = 1 and both on one side of Good]`.

    Args:
        tier: predicted column.
        gold: gold column.
        good: K, whether each column's band is Good.
    """
    if tier == gold:
        return 1.0
    return 0.25 if abs(tier - gold) == 1 and good[tier] == good[gold] else 0.0


def category_reward(found: CategoryVerdict, gold: CategoryVerdict | None) -> float | None:
    """`r_c = 1[c' = c]`; None where the gold verdict is unknown."""
    return None if gold is None else float(found is gold)


def attribute_reward(
    found: Mapping[str, AttributeVerdict], gold: Mapping[str, AttributeVerdict] | None
) -> float | None:
    """`r_a`: share of the annotated attributes with the gold verdict; None where none is annotated."""
    if not gold:
        return None
    return sum(found.get(name) is verdict for name, verdict in gold.items()) / len(gold)


def shaped_reward(tier: int | None, rationale: Rationale | None, gold: Gold, good: Sequence[bool]) -> float:
    """`R = G * (0.6 r_y + 0.2 r_c + 0.2 r_a) - 0.5 * (1 - G)`.

    `r_a` is `r_c` where no attribute is annotated; where no category is either, both are `r_y` (ours: the proposal is
    silent, and a constant would only move the group's mean).
    """
    if tier is None or rationale is None or not rule_gate(tier, rationale):
        return -0.5
    by_tier = tier_reward(tier, gold.tier, good)
    by_category = category_reward(rationale.category, gold.category)
    by_category = by_tier if by_category is None else by_category
    by_attribute = attribute_reward(dict(rationale.attributes), gold.attributes)
    by_attribute = by_category if by_attribute is None else by_attribute
    return 0.6 * by_tier + 0.2 * by_category + 0.2 * by_attribute


def replay_threshold(progress: float) -> float:
    """Group accuracy below which guidance is given: 0.25, decaying linearly to 0.1 over training.

    Args:
        progress: share of the training steps that is done, 0 to 1.
    """
    return 0.25 - 0.15 * min(1.0, max(0.0, progress))


def replacements(
    rewards: Sequence[float], guided_right: Sequence[bool], *, limit: int = GUIDED_KEPT
) -> list[tuple[int, int]]:
    """Which guided answers replace which unguided ones: (place in the group, number of the guided answer).

    At most `limit` right guided answers, each in the place of the worst unguided answer that is left. One unguided
    answer always stays, so that the group has something to compare with.
    """
    right = [i for i, ok in enumerate(guided_right) if ok][: max(0, min(limit, len(rewards) - 1))]
    worst = sorted(range(len(rewards)), key=lambda i: (rewards[i], i))
    return list(zip(worst, right, strict=False))
