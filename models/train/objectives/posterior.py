"""DyKnow-RAG's posterior-driven inter-group advantage scaling (arXiv 2510.11122, section 2.3).

Two rollout groups for one pair: n answers without context (rewards R0), n with one chunk (R1). Beside the ordinary
objective of each group, answers given without context are scored under the context prompt p', weighted by how they
compare with all 2n answers and by whether the context helped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from models.train.objectives.policy import CLAMP, EPSILON

if TYPE_CHECKING:
    from torch import Tensor

SHRINKAGE: Final = 4.0


def accuracy_gap(without: Tensor, with_context: Tensor) -> Tensor:
    """`acc_with - acc_without`, per pair, shrunk to the batch's: `(n * gap_q + 4 * gap_b) / (n + 4)`.

    The text measures accuracy "within the current batch", abstract and ablation per query. PROPOSAL: both, shrunk.

    Args:
        without: float [Q, n], 1 where an answer without context is right.
        with_context: float [Q, n].

    Returns:
        float [Q] in [-1, 1].
    """
    n = without.shape[-1]
    gap = with_context.float().mean(-1) - without.float().mean(-1)
    return (n * gap + SHRINKAGE * gap.mean()) / (n + SHRINKAGE)


def scaling(gap: Tensor) -> tuple[Tensor, Tensor]:
    """`beta = 4 * sigmoid(4 * gap)`, `alpha = 0.1 / beta` -> (alpha, beta), each like `gap`.

    Context helps (gap > 0): wrong answers without it are pushed down under p', right ones hardly imitated. It hurts:
    right ones are imitated under p', so that the model learns to ignore a chunk.
    """
    beta = 4 * torch.sigmoid(4 * gap)
    return 0.1 / beta, beta


def union_advantages(without: Tensor, with_context: Tensor) -> Tensor:
    """`(R0_i - mean*) / (std* + eps)` over the union of both groups, for the answers without context: float [Q, n]."""
    union = torch.cat([without, with_context], dim=-1)
    return (without - union.mean(-1, keepdim=True)) / (union.std(-1, keepdim=True) + EPSILON)


def transferred_weights(without: Tensor, with_context: Tensor, gap: Tensor) -> Tensor:
    """`T(A) = alpha * A if A > 0 else beta * A`, clamped to +-2 (PROPOSAL) and without a gradient.

    Args:
        without: float [Q, n], rewards R0.
        with_context: float [Q, n], rewards R1.
        gap: float [Q], of `accuracy_gap`.

    Returns:
        float [Q, n], one weight for each answer without context.
    """
    alpha, beta = scaling(gap)
    union = union_advantages(without, with_context)
    weight = torch.where(union > 0, alpha[:, None] * union, beta[:, None] * union)
    return weight.clamp(-CLAMP, CLAMP).detach()


def transferred_objective(log_probs: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """`mean_i 1/|o_i| sum_t pi(o_it | p', o_i<t) * T_i`: the raw probability, no ratio, log or clip, as written.

    Args:
        log_probs: float [B, T], log-probabilities of answers without context, scored under p'.
        mask: bool or float [B, T], 1 on their tokens.
        weights: float [B], of `transferred_weights`.

    Returns:
        Scalar, to be maximised.
    """
    per_answer = (log_probs.exp() * mask).sum(-1) / mask.sum(-1).clamp(min=1)
    return (per_answer * weights).mean()
