"""DPO on the model's own answers (arXiv 2508.12365, stage 2: pass@N self-correction; loss of arXiv 2305.18290)."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812 - the name every PyTorch reader knows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def dpo_loss(
    chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, beta: float
) -> Tensor:
    """`L = -mean log sigmoid(beta * [(log p_c - log q_c) - (log p_r - log q_r)])`, 2305.18290 equation 7.

    Args:
        chosen: float [B], log-probability of the chosen answer, summed over its tokens.
        rejected: float [B], of the rejected one.
        chosen_reference: float [B], under the frozen SFT model.
        rejected_reference: float [B].
        beta: strength of the pull to the reference. Not public in 2508.12365; PROPOSAL 0.1.
    """
    margin = (chosen - chosen_reference) - (rejected - rejected_reference)
    return -F.logsigmoid(beta * margin).mean()


def pass_at(samples: int, right: int, n: int) -> float:
    """Unbiased pass@n with `right` right answers: `1 - C(samples - right, n) / C(samples, n)` (2107.03374)."""
    if not 1 <= n <= samples:
        raise ValueError(f"pass@{n} needs at least {n} samples, there are {samples}")
    return 1 - comb(samples - right, n) / comb(samples, n)


@dataclass(frozen=True, slots=True)
class PairChoice:
    """Which samples make a preference pair. `chosen` is None where the teacher's answer is to be chosen."""

    chosen: int | None
    rejected: int


def choose_pair(right: Sequence[bool], log_probs: Sequence[float]) -> PairChoice | None:
    """The self-correction pair of one prompt (2508.12365, pass@N DPO).

    Right and wrong answers present: own right against own wrong. None right: the teacher's answer against own wrong.
    PROPOSAL: the likeliest wrong answer is rejected, since it is the mistake that sampling shows most; the likeliest
    right one is chosen; prompts without a wrong answer are skipped.

    Args:
        right: N, whether each sampled answer has the gold tier.
        log_probs: N, log-probability of each answer under the sampling model.

    Returns:
        None when nothing is wrong.
    """
    wrong = [i for i, ok in enumerate(right) if not ok]
    if not wrong:
        return None
    own = [i for i, ok in enumerate(right) if ok]
    best = max(own, key=lambda i: log_probs[i]) if own else None
    return PairChoice(best, max(wrong, key=lambda i: log_probs[i]))
