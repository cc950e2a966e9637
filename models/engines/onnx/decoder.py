"""Assembles the two graphs of a causal decoder out of a family's sub-blocks.

- `score`: rows of suffix tokens after cached prefix keys and values -> label logits, read at each row's last token.
  In the last layer only the keys and values need all tokens: query, output projection, feed-forward and head are
  computed for the answer position alone.
- `extend`: tokens after optional cached ones -> their keys and values, and, if asked for, logits over the whole
  vocabulary at one position. It computes prefixes (no logits) and decodes rationales.

Tokens come before rows, [S, R]: heads then lie where the fused matrix products can read them without a copy.

Inputs (R rows, S tokens a row, P cached tokens, G = R or 1 sets of cached keys and values, T = P + S):
    ids, positions  int64 [S, R]
    last            int64 [R], index of each row's answer position in the flattened S * R tokens
    bias            float32 [R or 1, 1, S, T], 0 where a token may look and a large negative number where not
    answer_bias     float32 [R, 1, 1, T], the same for the answer positions
    key_i, value_i  float32 [P, G, key heads, head size] of each layer i that attends
    wanted          bool [], `extend` only: compute the logits
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from onnx import TensorProto

from models.engines.onnx.graph import FUSED, GraphWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.engines.onnx.architecture import Architecture


class Family(Protocol):
    """Sub-blocks of one family of decoders. x is the residual stream, float32 [S * R, width]."""

    architecture: Architecture

    def attends(self, layer: int) -> bool:
        """Whether the layer's attention can change anything; one with a zero output projection cannot."""
        ...

    def embed(self, g: GraphWriter, ids: str, positions: str) -> str:
        """Token ids and positions [S * R] to x."""
        ...

    def before_attention(self, g: GraphWriter, layer: int, x: str) -> str:
        """What queries, keys and values are computed from."""
        ...

    def keys_values(self, g: GraphWriter, layer: int, x: str, positions: str) -> tuple[str, str]:
        """Keys and values of tokens at positions [S, R], each [S * R, key heads * head size]."""
        ...

    def queries(self, g: GraphWriter, layer: int, x: str, positions: str) -> str:
        """Queries [S * R, heads * head size], scaled by 1 / sqrt(head size)."""
        ...

    def after_attention(self, g: GraphWriter, layer: int, x: str, attended: str | None) -> str:
        """Output projection, residual sums, feed-forward; `attended` is [S * R, heads * head size] or None."""
        ...

    def finish(self, g: GraphWriter, x: str) -> str:
        """The norm after the last layer, if any."""
        ...

    def head_rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Rows of the head, float32 [len(ids), width]."""
        ...

    def head(self, g: GraphWriter, x: str) -> str:
        """Logits over the vocabulary."""
        ...


def write_score(g: GraphWriter, family: Family, labels: Sequence[int]) -> bytes:
    """The scoring graph: output `logits` float32 [R, len(labels)]."""
    body = _Body(g, family)
    x = family.finish(g, body.answer())
    rows = g.weight("labels.f32", lambda: np.ascontiguousarray(family.head_rows(labels).T))
    g.output(g.node("MatMul", x, rows), "logits", TensorProto.FLOAT, ["R", len(labels)])
    return g.model("score")


def write_extend(g: GraphWriter, family: Family) -> bytes:
    """The extending graph: outputs `new_key_i`, `new_value_i` and `logits` float32 [R or 0, vocabulary]."""
    a = family.architecture
    wanted = g.input("wanted", TensorProto.BOOL, [])
    body = _Body(g, family)
    with g.branch() as nodes:
        then = (nodes, family.head(g, family.finish(g, body.answer())))
    with g.branch() as nodes:
        other = (nodes, g.node("Identity", g.constant(np.zeros((0, a.vocabulary)), np.float32)))
    g.output(g.either(wanted, then, other), "logits", TensorProto.FLOAT, ["N", a.vocabulary])
    for layer, new in body.new.items():
        for kind, value in zip(("key", "value"), new, strict=True):
            g.output(value, f"new_{kind}_{layer}", TensorProto.FLOAT, ["S", "R", a.key_heads, a.head_size])
    return g.model("extend")


class _Body:
    """All layers over all tokens, except that the last one stops at its keys and values.

    Attributes:
        new: layer -> keys and values of this pass's tokens, each [S, R, key heads, head size].
    """

    def __init__(self, g: GraphWriter, family: Family) -> None:
        a = family.architecture
        self._g, self._family, self._a = g, family, a
        ids = g.input("ids", TensorProto.INT64, ["S", "R"])
        self._positions = g.input("positions", TensorProto.INT64, ["S", "R"])
        self._last = g.input("last", TensorProto.INT64, ["R"])
        self._bias = g.input("bias", TensorProto.FLOAT, ["B", 1, "S", "T"])
        self._answer_bias = g.input("answer_bias", TensorProto.FLOAT, ["R", 1, 1, "T"])
        self._tokens = g.node("Shape", ids)
        rows = g.node("Shape", ids, start=1, end=2)
        self._every_row = g.node("Concat", g.ints(1), rows, g.ints(1, 1), axis=0)  # one prefix serves all rows
        self._x = family.embed(g, _flat(g, ids), _flat(g, self._positions))
        self._joined: dict[int, tuple[str, str]] = {}
        self.new: dict[int, tuple[str, str]] = {}
        for layer in range(a.layers):
            normed = family.before_attention(g, layer, self._x) if family.attends(layer) else ""
            if normed:
                self._joined[layer] = self._keys_values(layer, normed)
            if layer < a.layers - 1:
                attended = None
                if normed:
                    queries = family.queries(g, layer, normed, self._positions)
                    attended = self._attend(layer, queries, self._tokens, self._bias)
                self._x = family.after_attention(g, layer, self._x, attended)

    def answer(self) -> str:
        """The last layer at the answer positions: [R, width]."""
        g, family, layer = self._g, self._family, self._a.layers - 1
        x = g.node("Gather", self._x, self._last)
        attended = None
        if family.attends(layer):
            positions = g.node("Reshape", g.node("Gather", _flat(g, self._positions), self._last), g.ints(1, -1))
            queries = family.queries(g, layer, family.before_attention(g, layer, x), positions)
            attended = self._attend(layer, queries, g.node("Shape", positions), self._answer_bias)
        return family.after_attention(g, layer, x, attended)

    def _keys_values(self, layer: int, x: str) -> tuple[str, str]:
        """Cached and new keys and values of a layer: each [T, R, key heads, head size]."""
        g, a = self._g, self._a
        heads = g.node("Concat", self._tokens, g.ints(a.key_heads, a.head_size), axis=0)
        keys, values = (g.node("Reshape", y, heads) for y in self._family.keys_values(g, layer, x, self._positions))
        self.new[layer] = (keys, values)
        joined = []
        for kind, new in (("key", keys), ("value", values)):
            cached = g.input(f"{kind}_{layer}", TensorProto.FLOAT, ["P", "G", a.key_heads, a.head_size])
            joined.append(g.node("Concat", g.node("Expand", cached, self._every_row), new, axis=0))
        return joined[0], joined[1]

    def _attend(self, layer: int, queries: str, tokens: str, bias: str) -> str:
        """Softmax attention: queries [S * R, heads * head size] of `tokens` = [S, R] -> the same shape.

        Query heads that share a key head are one more batch dimension, over which keys and values broadcast.
        """
        g, a = self._g, self._a
        keys, values = self._joined[layer]
        sharing = a.heads // a.key_heads
        heads = [a.key_heads] if sharing == 1 else [a.key_heads, sharing]
        if sharing > 1:
            keys, values = (g.node("Unsqueeze", y, g.ints(3)) for y in (keys, values))
            bias = g.node("Unsqueeze", bias, g.ints(1))
        queries = g.node("Reshape", queries, g.node("Concat", tokens, g.ints(*heads, a.head_size), axis=0))
        scores = g.node("FusedMatMul", queries, keys, domain=FUSED, transBatchA=1, transBatchB=1, transB=1)
        weights = g.node("Softmax", g.node("Add", scores, bias), axis=-1)
        attended = g.node("FusedMatMul", weights, values, domain=FUSED, transBatchB=1)  # [R, heads, S, head size]
        last = len(heads) + 1
        attended = g.node("Transpose", attended, perm=[last, *range(last), last + 1])
        return g.node("Reshape", attended, g.ints(-1, a.heads * a.head_size))


def _flat(g: GraphWriter, x: str) -> str:
    return g.node("Reshape", x, g.ints(-1))
