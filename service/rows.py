"""Rows: what is known of N items before their verdicts, alike from the cache and from the engine. Pure.

One NumPy record per item: hits and fresh scores are put together by indexing, and a record's bytes are what the cache
keeps. Nothing in a record depends on beta or temperature.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from models.engines.port import ItemStatus
from models.manifest import FieldName
from service.reply import Degraded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.engines.port import Scores
    from models.manifest import PromptTemplate
    from models.prompt import Prompt

Rows: TypeAlias = NDArray[np.void]

STATUSES: Final = tuple(ItemStatus)  # a record's status is a position in here
OK: Final = STATUSES.index(ItemStatus.OK)
EXPIRED: Final = STATUSES.index(ItemStatus.EXPIRED)
FAILED: Final = STATUSES.index(ItemStatus.FAILED)
LEFT_OUT: Final = (None, Degraded.CACHE_ONLY, Degraded.FIRST_ITEMS)  # a record's reason is a position in here
_BITS: Final[dict[str, int]] = {name: 1 << n for n, name in enumerate(get_args(FieldName))}


@lru_cache
def row_type(tiers: int) -> np.dtype[np.void]:
    """Layout of one item's record for K tiers: 4 K + 16 bytes, little-endian.

    logprobs: float32 [K] as the engine gave them, NaN where status is not ok; label_mass: NaN where not known;
    prefix_tokens, suffix_tokens: the prompt's, 0 where none was written; truncated, unrepresentable: fields as bits;
    status: position in STATUSES; left_out: position in LEFT_OUT, under what pressure an item was not even tried.
    """
    return np.dtype(
        [
            ("logprobs", "<f4", (tiers,)),
            ("label_mass", "<f4"),
            ("prefix_tokens", "<u4"),
            ("suffix_tokens", "<u4"),
            ("truncated", "u1"),
            ("unrepresentable", "u1"),
            ("status", "u1"),
            ("left_out", "u1"),
        ]
    )


def unscored(count: int, tiers: int, status: ItemStatus, left_out: Degraded | None = None) -> Rows:
    """Records of items that have no scores."""
    rows = np.zeros(count, row_type(tiers))
    rows["logprobs"] = rows["label_mass"] = np.nan
    rows["status"] = STATUSES.index(status)
    rows["left_out"] = LEFT_OUT.index(left_out)
    return rows


def scored(prompt: Prompt, scores: Scores) -> Rows:
    """Records of what the engine answered to a prompt; one that is not finite has FAILED, whatever its status says."""
    rows = np.zeros(len(prompt.suffixes), row_type(scores.logprobs.shape[1]))
    rows["logprobs"] = scores.logprobs
    rows["label_mass"] = np.nan if scores.label_mass is None else scores.label_mass
    rows["prefix_tokens"] = len(prompt.prefix.ids)
    rows["suffix_tokens"] = [len(s.ids) for s in prompt.suffixes]
    rows["truncated"] = [_bits(s.truncated) for s in prompt.suffixes]
    rows["truncated"] |= _bits(prompt.prefix.truncated)
    rows["unrepresentable"] = [_bits(s.unrepresentable) for s in prompt.suffixes]
    rows["unrepresentable"] |= _bits(prompt.prefix.unrepresentable)
    rows["status"] = [STATUSES.index(s) for s in scores.status]
    rows["status"][(rows["status"] == OK) & ~np.isfinite(rows["logprobs"]).all(axis=1)] = STATUSES.index(
        ItemStatus.FAILED
    )
    return rows


def prompt_tokens(rows: Rows) -> int:
    """Tokens of the request: the prefix once, every item's suffix on top."""
    return int(rows["prefix_tokens"].max(initial=0)) + int(rows["suffix_tokens"].sum())


def fields_of(bits: int, template: PromptTemplate) -> tuple[str, ...]:
    """Names of the fields in a bit set, in the order of the prompt."""
    if not bits:
        return ()
    order = dict.fromkeys(s.field for s in (*template.prefix, *template.suffix) if s.field)
    return tuple(name for name in order if bits & _BITS[name])


def _bits(fields: Iterable[str]) -> int:
    return sum(_BITS[name] for name in set(fields))
