"""What a forward pass said about the label tokens -> the port's `Scores`. Pure; shared by both vLLM engines."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from models.engines.port import ItemStatus, Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.deadline import Deadline

NEVER: Final = 2**62  # priorities are 64-bit; due after everything that has a deadline


@dataclass(frozen=True, slots=True)
class LabelRead:
    """One item's answer.

    Attributes:
        logprobs: K log-probabilities over the whole vocabulary, in the manifest's order.
        cached_tokens: prompt tokens whose keys and values were found, not computed.
    """

    logprobs: tuple[float, ...]
    cached_tokens: int = 0


def scores_of(
    reads: Sequence[LabelRead | None], missing: Sequence[ItemStatus], *, labels: int, prefix_tokens: int
) -> Scores:
    """Scores of N items.

    Args:
        reads: N answers, None where there is none.
        missing: N statuses, looked at where there is no answer.
        labels: K.
        prefix_tokens: length of the shared prefix; what of it the first item found is the request's cached share.

    Returns:
        `logprobs` renormalised over the labels in float32, `label_mass` from the log-probabilities as they came. An
        answer that is not finite makes its item FAILED: NaN must never become a tier.
    """
    raw = np.full((len(reads), labels), np.nan, dtype=np.float32)
    for row, read in zip(raw, reads, strict=True):
        if read is not None:
            row[:] = read.logprobs
    finite = np.asarray(np.isfinite(raw).all(axis=1))
    status = tuple(
        ItemStatus.OK if good else ItemStatus.FAILED if read is not None else why
        for good, read, why in zip(finite.tolist(), reads, missing, strict=True)
    )
    raw[~finite] = np.nan
    highest = raw.max(axis=1, keepdims=True)
    total = np.exp(raw - highest).sum(axis=1, keepdims=True)
    found = [min(read.cached_tokens, prefix_tokens) for read in reads if read is not None]
    return Scores(
        logprobs=raw - highest - np.log(total),
        label_mass=np.minimum(np.exp(highest[:, 0]) * total[:, 0], np.float32(1.0)),
        status=status,
        cached_tokens=min(found, default=0),
    )


def priority_of(deadline: Deadline) -> int:
    """Scheduling priority, smaller first: the deadline in milliseconds of wall time, comparable between gateways."""
    remaining = deadline.remaining()
    return NEVER if remaining == float("inf") else int((time.time() + remaining) * 1000)
