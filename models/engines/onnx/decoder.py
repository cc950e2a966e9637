"""Assembles the two graphs of a causal decoder out of a family's sub-blocks.

- `score`: rows of suffix tokens after cached prefix keys and values -> label logits, read at each row's last token.
  In the last layer only the keys and values need all tokens: query, output projection, feed-forward and head are
  computed for the answer position alone.
- `extend`: tokens after optional cached ones -> their keys and values, and, if asked for, logits over the whole
  vocabulary at one position. It computes prefixes (no logits) and decodes rationales.

Inputs (R rows, S tokens a row, P cached tokens, G = R or 1 sets of cached keys and values, T = P + S):
    ids, positions  int64 [R, S]
    last            int64 [R], index of each row's answer position in the flattened R * S tokens
    bias            float32 [R or 1, 1, S, T], 0 where a token may look and a large negative number where not
    answer_bias     float32 [R, 1, 1, T], the same for the answer positions
    key_i, value_i  float32 [G, key heads, P, head size] of each layer i that attends
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
    """Sub-blocks of one family of decoders. x is the residual stream, float32 [R, S, width]."""

    architecture: Architecture

    def attends(self, layer: int) -> bool:
        """Whether the layer's attention can change anything; one with a zero output projection cannot."""
        ...

    def embed(self, g: GraphWriter, ids: str, positions: str) -> str:
        """Token ids to x."""
        ...

    def before_attention(self, g: GraphWriter, layer: int, x: str) -> str:
        """What queries, keys and values are computed from."""
        ...

    def keys_values(self, g: GraphWriter, layer: int, x: str, positions: str) -> tuple[str, str]:
        """Keys and values, each [R, key heads, S, head size]."""
        ...

    def queries(self, g: GraphWriter, layer: int, x: str, positions: str) -> str:
        """Queries [R, heads, S, head size], scaled by 1 / sqrt(head size)."""
        ...

    def after_attention(self, g: GraphWriter, layer: int, x: str, attended: str | None) -> str:
        """Output projection, residual sums, feed-forward; `attended` is [R, S, heads * head size] or None."""
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
    for layer in range(family.architecture.layers - 1):
        body.layer(layer)
    x = family.finish(g, body.answer())
    rows = g.weight("labels.f32", lambda: np.ascontiguousarray(family.head_rows(labels).T))
    flat = g.node("Reshape", x, g.ints(-1, family.architecture.width))
    g.output(g.node("MatMul", flat, rows), "logits", TensorProto.FLOAT, ["R", len(labels)])
    return g.model("score")


def write_extend(g: GraphWriter, family: Family) -> bytes:
    """The extending graph: outputs `new_key_i`, `new_value_i` and `logits` float32 [R or 0, vocabulary]."""
    a = family.architecture
    body = _Body(g, family)
    wanted = g.input("wanted", TensorProto.BOOL, [])
    for layer in range(a.layers - 1):
        body.layer(layer)
    body.last_keys()
    with g.branch() as nodes:
        x = family.finish(g, body.answer())
        then = (nodes, g.node("Reshape", family.head(g, x), g.ints(-1, a.vocabulary)))
    with g.branch() as nodes:
        other = (nodes, g.node("Identity", g.constant(np.zeros((0, a.vocabulary)), np.float32)))
    g.output(g.either(wanted, then, other), "logits", TensorProto.FLOAT, ["N", a.vocabulary])
    for layer, (key, value) in body.new.items():
        g.output(key, f"new_key_{layer}", TensorProto.FLOAT, ["R", a.key_heads, "S", a.head_size])
        g.output(value, f"new_value_{layer}", TensorProto.FLOAT, ["R", a.key_heads, "S", a.head_size])
    return g.model("extend")


class _Body:
    """The layers of one graph, written one after another."""

    def __init__(self, g: GraphWriter, family: Family) -> None:
        a = family.architecture
        self._g, self._family = g, family
        self._last_layer = a.layers - 1
        ids = g.input("ids", TensorProto.INT64, ["R", "S"])
        self._positions = g.input("positions", TensorProto.INT64, ["R", "S"])
        self._last = g.input("last", TensorProto.INT64, ["R"])
        self._bias = g.input("bias", TensorProto.FLOAT, ["B", 1, "S", "T"])
        self._answer_bias = g.input("answer_bias", TensorProto.FLOAT, ["R", 1, 1, "T"])
        cached = ["G", a.key_heads, "P", a.head_size]
        self._past = {
            layer: (
                g.input(f"key_{layer}", TensorProto.FLOAT, cached),
                g.input(f"value_{layer}", TensorProto.FLOAT, cached),
            )
            for layer in range(a.layers)
            if family.attends(layer)
        }
        rows = g.node("Shape", ids, start=0, end=1)
        self._every_row = g.node("Concat", rows, g.ints(1, 1, 1), axis=0)  # broadcasts one prefix to all rows
        self._x = family.embed(g, ids, self._positions)
        self.new: dict[int, tuple[str, str]] = {}

    def layer(self, layer: int) -> None:
        """A whole layer over all tokens."""
        g, family = self._g, self._family
        attended = None
        if family.attends(layer):
            x = family.before_attention(g, layer, self._x)
            keys_values = self._keys_values(layer, x)
            queries = family.queries(g, layer, x, self._positions)
            attended = _attend(g, family.architecture, queries, *keys_values, self._bias)
        self._x = family.after_attention(g, layer, self._x, attended)

    def last_keys(self) -> None:
        """Keys and values of the last layer, which a prefix needs, before what only an answer needs."""
        if self._family.attends(self._last_layer):
            x = self._family.before_attention(self._g, self._last_layer, self._x)
            self._last_keys_values = self._keys_values(self._last_layer, x)

    def answer(self) -> str:
        """The last layer at the answer positions: [R, 1, width]."""
        g, family, layer = self._g, self._family, self._last_layer
        attended = None
        if family.attends(layer):
            if layer not in self.new:
                self.last_keys()
            keys_values = self._last_keys_values
        x = self._at_answer(self._x, family.architecture.width)
        if family.attends(layer):
            positions = g.node(
                "Unsqueeze", g.node("Gather", g.node("Reshape", self._positions, g.ints(-1)), self._last), g.ints(1)
            )
            queries = family.queries(g, layer, family.before_attention(g, layer, x), positions)
            attended = _attend(g, family.architecture, queries, *keys_values, self._answer_bias)
        return family.after_attention(g, layer, x, attended)

    def _at_answer(self, x: str, width: int) -> str:
        g = self._g
        return g.node("Unsqueeze", g.node("Gather", g.node("Reshape", x, g.ints(-1, width)), self._last), g.ints(1))

    def _keys_values(self, layer: int, x: str) -> tuple[str, str]:
        """Cached and new keys and values of a layer: each [R, key heads, T, head size]."""
        g = self._g
        self.new[layer] = self._family.keys_values(g, layer, x, self._positions)
        joined = [
            g.node("Concat", g.node("Expand", past, self._every_row), new, axis=2)
            for past, new in zip(self._past[layer], self.new[layer], strict=True)
        ]
        return joined[0], joined[1]


def _attend(g: GraphWriter, a: Architecture, queries: str, keys: str, values: str, bias: str) -> str:
    """Softmax attention: queries [R, heads, S, head size] -> [R, S, heads * head size]. Query heads share key heads."""
    shared = a.heads != a.key_heads
    if shared:
        queries = g.node("Reshape", queries, g.ints(0, a.key_heads, -1, a.head_size))
    scores = g.node("FusedMatMul", queries, keys, domain=FUSED, transB=1)
    if shared:
        length = g.node("Shape", bias, start=2, end=3)
        unshared = g.node("Concat", g.ints(0, a.heads), length, g.ints(-1), axis=0)
        scores = g.node("Reshape", scores, unshared)
    weights = g.node("Softmax", g.node("Add", scores, bias), axis=-1)
    if shared:
        rows = g.node("Concat", g.ints(0, a.key_heads, -1), g.node("Shape", bias, start=3, end=4), axis=0)
        weights = g.node("Reshape", weights, rows)
    attended = g.node("MatMul", weights, values)
    if shared:
        attended = g.node(
            "Reshape", attended, g.node("Concat", g.ints(0, a.heads), length, g.ints(a.head_size), axis=0)
        )
    return g.node("Reshape", g.node("Transpose", attended, perm=[0, 2, 1, 3]), g.ints(0, 0, a.heads * a.head_size))


def split_heads(g: GraphWriter, x: str, heads: int, size: int) -> str:
    """[R, S, heads * size] -> [R, S, heads, size]."""
    return g.node("Reshape", x, g.ints(0, 0, heads, size))


def heads_first(g: GraphWriter, x: str) -> str:
    """[R, S, heads, size] -> [R, heads, S, size]."""
    return g.node("Transpose", x, perm=[0, 2, 1, 3])
