"""TaoSR-SHE's stepwise reward policy optimisation, SRPO (arXiv 2510.07972).

Public are the ideas: step rewards from a human-annotated verifier and a generative stepwise reward model, priority for
critical steps, diversified filtering, a curriculum. The numbers are PROPOSALs. Steps are the fields of the rationale,
in its order: category, attributes, context, reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from models.train.objectives.policy import group_advantages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

STEPS: Final = ("category", "attributes", "context", "reason")
CRITICAL: Final = 2.0
CONFIDENT: Final = 0.7  # 2510.11122: below it the error rate of the SFT model nears one half
STAGE_SHARES: Final = (0.0, 0.25, 0.5)  # of a step's token advantage that its step reward decides, by curriculum stage


def step_reward(verified: bool | None, judged: bool | None) -> float:  # noqa: FBT001 - three-valued opinions
    """+1 right, -1 wrong, 0 unknown. The verifier's closed-set gold speaks first, else the generative judge."""
    opinion = judged if verified is None else verified
    return 0.0 if opinion is None else 1.0 if opinion else -1.0


def step_advantages(rewards: Tensor) -> Tensor:
    """`A_is = (r_is - mean_i r_is) / (std_i r_is + eps)`, step by step across the group.

    Args:
        rewards: float [..., G, S].

    Returns:
        float [..., G, S].
    """
    return group_advantages(rewards.transpose(-1, -2)).transpose(-1, -2)


def step_weights(rewards: Tensor, right: Tensor) -> Tensor:
    """Priority of critical steps.

    2 for the first wrong step and for right steps of failing rollouts, 0 after the first wrong step, else 1.

    Args:
        rewards: float [..., S], in {-1, 0, +1}.
        right: bool [...], the rollout's tier is gold.

    Returns:
        float [..., S].
    """
    wrong = rewards < 0
    before = wrong.cumsum(-1) - wrong.long()  # wrong steps before this one
    weights = torch.ones_like(rewards)
    weights = torch.where((rewards > 0) & ~right[..., None], CRITICAL, weights)
    weights = torch.where(wrong, CRITICAL, weights)
    return torch.where(before > 0, 0.0, weights)


def token_advantages(outcome: Tensor, steps: Tensor, weights: Tensor, spans: Tensor, share: Tensor) -> Tensor:
    """Advantage of every token: the label's is the outcome's, a step's is `w * ((1 - s) A_outcome + s A_step)`.

    The proposal has s = 0.5; earlier curriculum stages have less.

    Args:
        outcome: float [B], outcome advantages.
        steps: float [B, S], step advantages.
        weights: float [B, S], of `step_weights`.
        spans: int64 [B, T], 0 for the label and what belongs to no step, s + 1 for tokens of step s.
        share: float [B], `s`.

    Returns:
        float [B, T].
    """
    mixed = weights * ((1 - share[:, None]) * outcome[:, None] + share[:, None] * steps)
    table = torch.cat([outcome[:, None], mixed], dim=1)  # [B, 1 + S]
    # A stage that does not look at steps leaves plain GRPO.
    table = torch.where(share[:, None] > 0, table, outcome[:, None])
    return table.gather(1, spans)


def diverse(rationales: Sequence[frozenset[str]], *, cap: int, alike: float = 0.8) -> list[bool]:
    """Diversified filter: at most `cap` rationales of one cluster are kept.

    The proposal clusters by embedding. Ours: by word overlap (Jaccard of `alike` or more with the cluster's first), in
    order; rationales are short and of a closed form, and no second model is needed.

    Args:
        rationales: words of each answer of a group.
        cap: kept of a cluster.
        alike: overlap from which two rationales say the same.

    Returns:
        Whether each is kept.
    """
    firsts: list[frozenset[str]] = []
    counts: list[int] = []
    kept = []
    for words in rationales:
        cluster = next((i for i, first in enumerate(firsts) if _jaccard(words, first) >= alike), None)
        if cluster is None:
            firsts.append(words)
            counts.append(0)
            cluster = len(firsts) - 1
        counts[cluster] += 1
        kept.append(counts[cluster] <= cap)
    return kept


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def curriculum_stage(confidence: float, *, hard: bool) -> int:
    """0: easy, the SFT model is confident; 1: confidence below 0.7; 2: a hard kind of query.

    Args:
        confidence: the SFT model's probability of its likeliest tier.
        hard: negation, affordable alternative, question, knowledge: the four hard kinds of 2508.12365.
    """
    if hard:
        return 2
    return 1 if confidence < CONFIDENT else 0


def entropy_floor(first: float) -> float:
    """Mean token entropy that training must keep: 0.3 of its first value."""
    return 0.3 * first
