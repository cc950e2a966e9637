"""SFT, label first (arXiv 2508.12365, section on SFT with post-CoT)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def label_first_loss(log_probs: Tensor, labels: Tensor, rationale: Tensor, *, rationale_weight: float) -> Tensor:
    """Next-token cross-entropy over label and rationale, each averaged over its own tokens.

    `L = -mean_i log p(label_i) + w * -mean_t log p(rationale_t)`

    2508.12365 uses the plain mean over all output tokens. PROPOSAL: two means, so that a long rationale does not drown
    the one token that serving reads; `w` = rationale tokens / label tokens of the batch gives the paper's mean back, up
    to its scale.

    Args:
        log_probs: float [B, T], log-probability of each next token over the whole vocabulary.
        labels: bool [B, T], True where the next token is the label.
        rationale: bool [B, T], True where it belongs to the rationale.
        rationale_weight: `w`.

    Returns:
        Scalar; 0 for a part without tokens.
    """
    return _mean(-log_probs, labels) + rationale_weight * _mean(-log_probs, rationale)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)
