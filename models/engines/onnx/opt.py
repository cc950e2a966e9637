"""OPT's layers, norms before or after the residual sums (arXiv 2205.01068; weight names as in transformers)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import TensorProto

from models.engines.onnx.graph import FUSED, GraphWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.engines.onnx.architecture import Architecture
    from models.engines.onnx.weights import Checkpoint

_ROOT: Final = "model.decoder"


class Opt:
    """Implements `decoder.Family`.

    Biases that cost time and change nothing are left out: a key's bias adds the same number to all scores of a query,
    which softmax ignores; a value's bias passes through softmax weights that sum to one, so it joins the output's bias.
    """

    def __init__(self, architecture: Architecture, checkpoint: Checkpoint) -> None:
        self.architecture = architecture
        self._c = checkpoint
        a = architecture
        self._attends = tuple(
            bool(checkpoint.linear(f"{self._at(i)}.self_attn.out_proj.weight", a.width, a.width).any())
            for i in range(a.layers)
        )
        self._feeds = tuple(
            bool(checkpoint.linear(f"{self._at(i)}.fc2.weight", a.inner, a.width).any()) for i in range(a.layers)
        )

    @staticmethod
    def _at(layer: int) -> str:
        return f"{_ROOT}.layers.{layer}"

    def attends(self, layer: int) -> bool:
        """False where the output projection is zero: what remains is its bias."""
        return self._attends[layer]

    def embed(self, g: GraphWriter, ids: str, positions: str) -> str:
        """Token rows in the type they are stored in, plus position rows."""
        a, c = self.architecture, self._c
        tokens = g.weight("embed_tokens", lambda: c.stored(f"{_ROOT}.embed_tokens.weight", (a.vocabulary, a.width)))
        table = g.weight("embed_positions", self._positions)
        token = g.node("Cast", g.node("Gather", tokens, ids), to=TensorProto.FLOAT)
        return g.node("Add", token, g.node("Gather", table, positions))

    def _positions(self) -> NDArray[np.float32]:
        a = self.architecture
        rows = self._c.tensor(f"{_ROOT}.embed_positions.weight", a.positions + a.position_offset, a.width)
        return rows[a.position_offset :]

    def before_attention(self, g: GraphWriter, layer: int, x: str) -> str:
        """The first norm, when norms come first."""
        return self._norm(g, x, f"{self._at(layer)}.self_attn_layer_norm") if self.architecture.pre_norm else x

    def keys_values(self, g: GraphWriter, layer: int, x: str, positions: str) -> tuple[str, str]:
        """Without biases: see the class."""
        del positions
        return self._heads(g, layer, x, "k_proj"), self._heads(g, layer, x, "v_proj")

    def queries(self, g: GraphWriter, layer: int, x: str, positions: str) -> str:
        """The scale lives in the weights."""
        del positions
        return self._heads(g, layer, x, "q_proj")

    def _heads(self, g: GraphWriter, layer: int, x: str, part: str) -> str:
        a, c, name = self.architecture, self._c, f"{self._at(layer)}.self_attn.{part}"
        scale, bias = np.float32(1), None
        if part == "q_proj":
            scale = np.float32(a.head_size**-0.5)
            bias = c.tensor(f"{name}.bias", a.width) * scale
        return g.linear(
            x,
            name,
            lambda: c.linear(f"{name}.weight", a.width, a.width) * scale,
            bias,
            source=f"{self._at(layer)}.attention",
        )

    def after_attention(self, g: GraphWriter, layer: int, x: str, attended: str | None) -> str:
        """Two residual sums, each normed after (or, pre-norm, before its sub-block)."""
        pre, at = self.architecture.pre_norm, self._at(layer)
        x = self._residual(g, layer, x, attended)
        x = x if pre else self._norm(g, x, f"{at}.self_attn_layer_norm")
        x = self._feed_forward(g, layer, x, self._norm(g, x, f"{at}.final_layer_norm") if pre else x)
        return x if pre else self._norm(g, x, f"{at}.final_layer_norm")

    def _residual(self, g: GraphWriter, layer: int, x: str, attended: str | None) -> str:
        a, c, at = self.architecture, self._c, f"{self._at(layer)}.self_attn"
        bias = c.tensor(f"{at}.out_proj.bias", a.width)
        if attended is None:
            return self._add_constant(g, x, f"{at}.out_proj", bias)

        def weight() -> NDArray[np.float32]:
            return c.linear(f"{at}.out_proj.weight", a.width, a.width)

        bias = bias + c.tensor(f"{at}.v_proj.bias", a.width) @ weight()
        return g.node("Add", x, g.linear(attended, f"{at}.out_proj", weight, bias))

    def _feed_forward(self, g: GraphWriter, layer: int, x: str, normed: str) -> str:
        a, c, at = self.architecture, self._c, self._at(layer)
        bias = c.tensor(f"{at}.fc2.bias", a.width)
        if not self._feeds[layer]:
            return self._add_constant(g, x, f"{at}.fc2", bias)
        inner = g.linear(
            normed,
            f"{at}.fc1",
            lambda: c.linear(f"{at}.fc1.weight", a.width, a.inner),
            c.tensor(f"{at}.fc1.bias", a.inner),
            source=f"{at}.feed_forward",
        )
        inner = activate(g, a.activation, inner)
        y = g.linear(
            inner, f"{at}.fc2", lambda: c.linear(f"{at}.fc2.weight", a.inner, a.width), bias, floor=FLOORS[a.activation]
        )
        return g.node("Add", x, y)

    @staticmethod
    def _add_constant(g: GraphWriter, x: str, name: str, bias: NDArray[np.float32]) -> str:
        return g.node("Add", x, g.weight(f"{name}.bias", lambda: bias)) if bias.any() else x

    def _norm(self, g: GraphWriter, x: str, name: str) -> str:
        a, c = self.architecture, self._c
        scale = g.weight(f"{name}.weight", lambda: c.tensor(f"{name}.weight", a.width))
        shift = g.weight(f"{name}.bias", lambda: c.tensor(f"{name}.bias", a.width))
        return g.node("LayerNormalization", x, scale, shift, axis=-1, epsilon=a.epsilon)

    def finish(self, g: GraphWriter, x: str) -> str:
        """Pre-norm decoders end with one more norm."""
        return self._norm(g, x, f"{_ROOT}.final_layer_norm") if self.architecture.pre_norm else x

    def _head_name(self) -> str:
        return f"{_ROOT}.embed_tokens.weight" if self.architecture.tied_head else "lm_head.weight"

    def head_rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Label rows of the head."""
        return self._c.rows(self._head_name(), ids, (self.architecture.vocabulary, self.architecture.width))

    def head(self, g: GraphWriter, x: str) -> str:
        """The whole head."""
        a = self.architecture
        return g.linear(x, "head", lambda: self._c.linear(self._head_name(), a.width, a.vocabulary))


# What each nonlinearity never falls below.
FLOORS: Final[dict[str, float | None]] = {"gelu": -0.1701, "gelu_tanh": -0.1701, "relu": 0.0, "silu": None}


def activate(g: GraphWriter, activation: str, x: str) -> str:
    """The feed-forward's nonlinearity as one fused operator."""
    if activation == "silu":
        return g.node("QuickGelu", x, domain=FUSED, alpha=1.0)  # x * sigmoid(alpha * x)
    if activation == "relu":
        return g.node("Relu", x)
    return g.node("Gelu" if activation == "gelu" else "FastGelu", x, domain=FUSED)
