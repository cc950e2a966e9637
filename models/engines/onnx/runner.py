"""Runs the two graphs. Blocking and thread-safe; knows nothing of requests, deadlines or the event loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnxruntime

from models.engines.onnx.batch import KeysValues, Row, padded, prefix_feed, right_aligned, score_feed, step_feed
from models.engines.onnx.build import EXTEND, SCORE, architecture_of
from models.engines.onnx.cache import graphs, probe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from models.engines.onnx.architecture import Architecture
    from models.engines.onnx.batch import Feed
    from models.engines.onnx.build import Recipe


@dataclass(slots=True)
class Decoding:
    """A sequence being decoded: `ids` are not computed yet, the first `filled` keys and values are."""

    ids: tuple[int, ...]
    cached: KeysValues
    filled: int = 0


class Runner:
    """Two ONNX Runtime sessions over one weight file.

    Each pass runs on the thread that calls it: calls from several threads share the weights and not their time, which
    beats splitting every operator of one pass between threads (docs/engine.md).
    """

    def __init__(self, folder: Path, architecture: Architecture) -> None:
        self._score = _open(folder / SCORE)
        self._extend = _open(folder / EXTEND)
        self.architecture = architecture
        self._cached = [i.name for i in self._extend.get_inputs() if i.name.startswith(("key_", "value_"))]
        none = np.zeros((0, 1, architecture.key_heads, architecture.head_size), np.float32)
        self.empty = KeysValues(0, dict.fromkeys(self._cached, none))

    @classmethod
    def open(cls, recipe: Recipe, cache_dir: Path | None = None) -> Self:
        """The recipe's graphs, with weights in the form whose products this processor sums right.

        Args:
            recipe: what to build, if the cache does not hold it.
            cache_dir: where built graphs are kept; `TIERWISE_CACHE_DIR` or the user's cache folder when None.
        """
        architecture = architecture_of(recipe)
        if recipe.precision == "int8" and saturates(cache_dir):
            recipe = replace(recipe, unsigned=True)
        return cls(graphs(recipe, cache_dir), architecture)

    def score(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Label logits of R rows: float32 [R, K]."""
        feed = score_feed(rows, self.architecture.positions)
        logits: NDArray[np.float32] = self._score.run(["logits"], feed)[0]
        return logits

    def prefixes(self, prefixes: Sequence[Sequence[int]]) -> list[KeysValues]:
        """Keys and values of prefixes, none of them empty, in one pass."""
        _, new = self._run_extend(prefix_feed(prefixes, self.empty, self.architecture.positions))
        return [right_aligned(new, row, len(prefix)) for row, prefix in enumerate(prefixes)]

    def decode(self, ids: Sequence[int], room: int) -> Decoding:
        """Begin to decode after `ids`, with room for that many more tokens; nothing is computed yet."""
        a = self.architecture
        length = padded(len(ids) + room)
        arrays = {name: np.zeros((length, 1, a.key_heads, a.head_size), np.float32) for name in self._cached}
        return Decoding(ids=tuple(ids), cached=KeysValues(length, arrays))

    def step(self, decoding: Decoding) -> int:
        """One greedy step: the id of the likeliest next token, which the next step will read."""
        feed = step_feed(decoding.ids, decoding.cached, decoding.filled, self.architecture.positions)
        logits, new = self._run_extend(feed)
        end = decoding.filled + len(decoding.ids)
        for name, value in new.items():
            decoding.cached.arrays[name][decoding.filled : end] = value[: len(decoding.ids)]
        token = int(logits[0].argmax())
        decoding.filled, decoding.ids = end, (token,)
        return token

    def _run_extend(self, feed: Feed) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        logits, *new = self._extend.run(["logits", *(f"new_{name}" for name in self._cached)], feed)
        return logits, dict(zip(self._cached, new, strict=True))


def saturates(cache_dir: Path | None = None) -> bool:
    """Whether this processor sums products of unsigned and signed bytes wrongly.

    Without VNNI instructions ONNX Runtime adds pairs of them in 16 bits, which overflow.
    """
    found, expected = _open(probe(cache_dir)).run(["found", "expected"], {})
    return not np.array_equal(found, expected)


def _open(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # ONNX Runtime's own fusions (SkipLayerNormalization, BiasGelu) are slower on the CPU than what they replace.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.enable_mem_pattern = False  # shapes vary from pass to pass; one plan each would only grow
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
