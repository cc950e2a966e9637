"""Figures of a judge on labelled rows while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.evaluation.metrics import accuracy, auc, calibration_error, confusion, macro_f1, negative_log_likelihood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def figures(logprobs: NDArray[np.float32], truth: Sequence[int], good: Sequence[bool]) -> dict[str, float]:
    """Figures under the likeliest tier; no calibration is involved.

    Args:
        logprobs: float32 [N, K], log-softmax over the labels.
        truth: N tier columns.
        good: K, whether a tier's band is Good.
    """
    p = np.exp(logprobs)
    gold, is_good = np.array(truth, dtype=np.int64), np.array(good)
    matrix = confusion(gold, p.argmax(-1), p.shape[1])
    by_good = p[:, is_good].sum(-1).astype(np.float64)
    found = {
        "loss": negative_log_likelihood(p, gold),
        "accuracy": accuracy(matrix),
        "macro_f1": macro_f1(matrix),
        "auc_good": auc(by_good, is_good[gold]),
        "calibration_error": calibration_error(by_good, is_good[gold]),
    }
    return {name: round(float(value), 4) for name, value in found.items()}
