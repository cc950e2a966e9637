"""GRPO with difficulty-based dynamic sampling (arXiv 2508.12365, stage 3; GRPO of arXiv 2402.03300)."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

EPSILON: Final = 1e-4  # beside the standard deviation, as TRL has it
CLAMP: Final = 2.0  # of an advantage, 2510.11122 section on settings


def outcome_reward(tier: int | None, gold: int, *, well_formed: bool = True) -> float:
    """1 for the gold tier, 0 for another, -1 for an answer that cannot be read.

    2508.12365 and 2510.11122 say 0/1 correctness. PROPOSAL: -1 for a missing label or a rationale out of its schema.
    """
    if tier is None or not well_formed:
        return -1.0
    return float(tier == gold)


def group_advantages(rewards: Tensor) -> Tensor:
    """`A_i = (R_i - mean R) / (std R + eps)` within each group (2402.03300 section 4.1.2).

    Args:
        rewards: float [..., G].

    Returns:
        float [..., G]; zeros where all rewards of a group are equal. The standard deviation is the sample's (G - 1).
    """
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True) + EPSILON)


def clamp(advantages: Tensor, limit: float = CLAMP) -> Tensor:
    """Advantages within +-`limit`: 2 in 2510.11122."""
    return advantages.clamp(-limit, limit)


def kept_groups(right: Tensor, gamma: float) -> Tensor:
    """Difficulty-based dynamic sampling: keep a prompt when `0 < #right < gamma * G` (2508.12365).

    Args:
        right: bool or float [..., G], 1 where a rollout has the gold tier.
        gamma: as a share of the group. Not public; 2510.11122 keeps group accuracies in [0.01, 0.9], hence PROPOSAL
            0.9. More than 1 drops only the groups that are all right or all wrong ("minimal rejection").

    Returns:
        bool [...].
    """
    count, size = right.float().sum(-1), right.shape[-1]
    return (count > 0) & (count < min(gamma * size, size))


def dropped_out(advantages: Tensor, kept: Tensor) -> Tensor:
    """Zero the advantages of dropped groups; those of a kept one count the same in every batch, as its KL does.

    Args:
        advantages: float [Q, G, ...].
        kept: bool [Q].
    """
    return advantages * kept.view(-1, *([1] * (advantages.dim() - 1)))


def clipped_objective(ratio: Tensor, advantages: Tensor, epsilon: float = 0.2) -> Tensor:
    """`min(r * A, clip(r, 1 - eps, 1 + eps) * A)` by token (2402.03300 equation 3). What TRL computes; for tests."""
    return torch.minimum(ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages)


def balanced_order(tiers: Sequence[int], seed: int) -> list[int]:
    """Row numbers, down-sampled to equal counts of every tier that occurs and taken in turns.

    2508.12365 finds final quality to fall with the coefficient of variation of label frequencies in a batch; taking
    tiers in turns makes it 0 in every batch that holds a multiple of the tiers.
    """
    rng = random.Random(seed)
    rows: dict[int, list[int]] = defaultdict(list)
    for row, tier in enumerate(tiers):
        rows[tier].append(row)
    count = min(map(len, rows.values()), default=0)
    drawn = [rng.sample(rows[tier], count) for tier in sorted(rows)]
    turns = [list(turn) for turn in zip(*drawn, strict=True)]
    for turn in turns:
        rng.shuffle(turn)
    return [row for turn in turns for row in turn]


def staged_order(stages: Sequence[int], tiers: Sequence[int]) -> list[int]:
    """Row numbers stage by stage; within each, tiers are taken in turns for as long as they last. No row is dropped."""
    seen: Counter[tuple[int, int]] = Counter()
    keys = []
    for place in zip(stages, tiers, strict=True):
        keys.append((place[0], seen[place]))
        seen[place] += 1
    return sorted(range(len(keys)), key=keys.__getitem__)


def variation(tiers: Sequence[int], count: int) -> float:
    """Coefficient of variation of the label frequencies of a batch: standard deviation / mean over `count` tiers."""
    frequency = torch.bincount(torch.tensor(list(tiers)), minlength=count).float()
    return float(frequency.std(correction=0) / frequency.mean())
