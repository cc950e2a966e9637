"""Token ids and cached keys to the arrays one forward pass takes. Pure numpy.

Lengths are padded so that a row's numbers do not depend on the other rows of its pass, to the last bit: rows are padded
at their end, prefixes at their start, each to a multiple of LANES. A row's own tokens and its prefix then always lie at
the same offset modulo the vector width, sums run over the same lanes in the same order, and padding only adds zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

LANES: Final = 16
_HIDDEN: Final = np.float32(-1e30)

Feed = dict[str, "NDArray[Any]"]


@dataclass(frozen=True, slots=True, eq=False)
class KeysValues:
    """Keys and values of one prefix.

    Attributes:
        length: P, tokens.
        arrays: input name -> float32 [padded(P), 1, key heads, head size]; the prefix stands at the end.
    """

    length: int
    arrays: dict[str, NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(a.nbytes for a in self.arrays.values())

    @property
    def columns(self) -> int:
        """Padded length."""
        return padded(self.length)


@dataclass(frozen=True, slots=True)
class Row:
    """One suffix and the prefix that it follows."""

    suffix: Sequence[int]
    prefix: KeysValues


def padded(length: int) -> int:
    """The next multiple of LANES."""
    return -(-length // LANES) * LANES


def score_feed(rows: Sequence[Row], positions: int) -> Feed:
    """Inputs of the scoring graph for R rows of any prefixes.

    Args:
        rows: none of their suffixes is empty.
        positions: how many the model has; padding is kept below.
    """
    starts = np.array([row.prefix.length for row in rows])
    feed, lengths = _tokens([row.suffix for row in rows], starts, positions)
    shared = all(row.prefix is rows[0].prefix for row in rows)
    sets = [rows[0].prefix] if shared else [row.prefix for row in rows]
    columns = max(p.columns for p in sets)
    feed |= sets[0].arrays if shared else _stack(sets, columns)
    feed |= _biases(starts[: len(sets)], columns, lengths, len(feed["ids"]))
    return feed


def prefix_feed(prefixes: Sequence[Sequence[int]], empty: KeysValues, positions: int) -> Feed:
    """Inputs of the extending graph for R prefixes, none empty, that follow nothing."""
    starts = np.zeros(len(prefixes), np.int64)
    feed, lengths = _tokens(prefixes, starts, positions)
    return feed | empty.arrays | _biases(starts[:1], 0, lengths, len(feed["ids"])) | {"wanted": np.array(False)}


def step_feed(ids: Sequence[int], cached: KeysValues, filled: int, positions: int) -> Feed:
    """Inputs of the extending graph for one sequence that goes on, logits wanted.

    Args:
        ids: what follows.
        cached: keys and values of which the first `filled` are set: here the sequence stands at the start.
        filled: tokens so far.
        positions: how many the model has.
    """
    feed, lengths = _tokens([ids], np.array([filled]), positions)
    columns, width = cached.columns, len(feed["ids"])
    biases = _biases(np.array([columns]), columns, lengths, width)
    for name in ("bias", "answer_bias"):
        biases[name][..., filled:columns] = _HIDDEN
    return feed | cached.arrays | biases | {"wanted": np.array(True)}


def right_aligned(new: Mapping[str, NDArray[np.float32]], row: int, length: int) -> KeysValues:
    """One prefix's keys and values out of a pass over several, moved to the end of their padding."""
    arrays = {}
    for name, value in new.items():
        arrays[name] = np.zeros((padded(length), 1, *value.shape[2:]), np.float32)
        arrays[name][padded(length) - length :, 0] = value[:length, row]
    return KeysValues(length, arrays)


def _tokens(
    suffixes: Sequence[Sequence[int]], starts: NDArray[np.int64], positions: int
) -> tuple[Feed, NDArray[np.int64]]:
    lengths = np.array([len(s) for s in suffixes])
    width = padded(int(lengths.max()))
    ids = np.zeros((width, len(suffixes)), np.int64)
    for row, suffix in enumerate(suffixes):
        ids[: len(suffix), row] = suffix
    places = np.minimum(np.arange(width)[:, None] + starts, positions - 1)
    last = (lengths - 1) * len(suffixes) + np.arange(len(suffixes))
    return {"ids": ids, "positions": places, "last": last}, lengths


def _biases(starts: NDArray[np.int64], columns: int, lengths: NDArray[np.int64], width: int) -> Feed:
    """Attention biases: a token looks at its prefix and at its own row's tokens up to itself.

    Args:
        starts: [G] prefix lengths, G = 1 or R.
        columns: padded prefix length of this pass.
        lengths: [R] suffix lengths.
        width: padded suffix length.
    """
    own = np.arange(width)
    prefix = np.where(np.arange(columns) >= columns - starts[:, None], np.float32(0), _HIDDEN)  # [G, columns]
    causal = np.where(own <= own[:, None], np.float32(0), _HIDDEN)  # [width, width]
    bias = np.empty((len(starts), 1, width, columns + width), np.float32)
    bias[..., :columns] = prefix[:, None, None]
    bias[..., columns:] = causal
    answer = np.empty((len(lengths), 1, 1, columns + width), np.float32)
    answer[..., :columns] = prefix[:, None, None]
    answer[:, 0, 0, columns:] = causal[lengths - 1]
    return {"bias": bias, "answer_bias": answer}


def _stack(sets: Sequence[KeysValues], columns: int) -> Feed:
    """Prefixes of several requests side by side, each at the end of `columns`."""
    stacked = {}
    for name, first in sets[0].arrays.items():
        stacked[name] = np.zeros((columns, len(sets), *first.shape[2:]), np.float32)
        for row, one in enumerate(sets):
            stacked[name][columns - one.columns :, row] = one.arrays[name][:, 0]
    return stacked
