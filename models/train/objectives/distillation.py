"""Soft labels of a big judge for a small one (arXiv 1503.02531), with prototypes of related domains (2110.08551)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F  # noqa: N812 - the name every PyTorch reader knows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def soft_label_loss(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """`T^2 * mean KL(targets || softmax(logits / T))` over the label tokens alone (1503.02531 section 2).

    Args:
        logits: float [B, K], the student's label logits.
        targets: float [B, K], the teacher's probabilities, already at temperature T.
        temperature: T; 1 keeps the teacher's own calibration.
    """
    log_probs = F.log_softmax(logits / temperature, dim=-1)
    return temperature**2 * F.kl_div(log_probs, targets, reduction="batchmean")


def tempered(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities [N, K] at another temperature: `p^(1/T)`, normalised."""
    powered = np.power(np.clip(probabilities, 1e-12, 1), 1 / temperature)
    result: NDArray[np.float64] = powered / powered.sum(-1, keepdims=True)
    return result


def prototype_targets(
    teacher: NDArray[np.float64], domains: NDArray[np.int64], *, strength: float
) -> NDArray[np.float64]:
    """Pull the teacher's doubtful labels to what is usual in related domains.

    2110.08551 distils over several domains with prototypes compared and aggregated along a graph of domains; its form
    needs hidden states of equal depth. PROPOSAL, in its spirit, on label probabilities alone:
    `M[d, k]` = mean teacher row of domain d among pairs that the teacher puts in tier k (prototype);
    `R[d, e]` = softmax over e of minus the mean absolute difference of prototypes, times 10 (relation);
    `w_i` = strength * entropy(p_i) / log K; target `(1 - w_i) p_i + w_i * sum_e R[d_i, e] M[e, argmax p_i]`.
    A sure teacher is followed as it is; a doubtful one is averaged with its kind, which takes single mistakes out.

    Args:
        teacher: [N, K] probabilities.
        domains: [N] domain numbers, 0 to D - 1.
        strength: 0 switches it off, 1 replaces a label of full doubt.

    Returns:
        [N, K], rows sum to 1.
    """
    if strength == 0:
        return teacher
    count, tiers = int(domains.max()) + 1, teacher.shape[1]
    likeliest = teacher.argmax(-1)
    overall = np.stack([_row(teacher[likeliest == k], np.eye(tiers)[k]) for k in range(tiers)])
    prototypes = np.stack(
        [[_row(teacher[(domains == d) & (likeliest == k)], overall[k]) for k in range(tiers)] for d in range(count)]
    )  # [D, K, K]
    apart = np.abs(prototypes[:, None] - prototypes[None]).mean((-1, -2))  # [D, D]
    relation = np.exp(-10 * apart)
    relation /= relation.sum(-1, keepdims=True)
    usual = np.einsum("de,ekj->dkj", relation, prototypes)
    entropy = -(teacher * np.log(np.clip(teacher, 1e-12, 1))).sum(-1) / math.log(tiers)
    weight = (strength * entropy)[:, None]
    result: NDArray[np.float64] = (1 - weight) * teacher + weight * usual[domains, likeliest]
    return result


def _row(rows: NDArray[np.float64], otherwise: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = rows.mean(0) if len(rows) else otherwise
    return found
