"""Layers of Llama and its kin (Mistral, Qwen2, Qwen3): RMS norm, rotary positions, gated feed-forward."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from models.engines.onnx.graph import FUSED, GraphWriter
from models.engines.onnx.opt import activate
from models.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from models.engines.onnx.architecture import Architecture
    from models.engines.onnx.weights import Checkpoint


class Llama:
    """Implements `decoder.Family`. `longest` positions get a row in the rotary tables."""

    def __init__(self, architecture: Architecture, checkpoint: Checkpoint, longest: int) -> None:
        if architecture.rotary is None:
            raise CheckpointError("config.json describes no rotary positions")
        self.architecture = architecture
        self._c = checkpoint
        # transformers multiplies and takes cosines in float32: do the same, or far positions drift apart
        frequencies = np.asarray(architecture.rotary.inverse_frequencies, np.float32)
        self._angles = np.arange(longest, dtype=np.float32)[:, None] * frequencies

    @staticmethod
    def _at(layer: int) -> str:
        return f"model.layers.{layer}"

    def attends(self, layer: int) -> bool:
        """Always: users' checkpoints have no empty layers."""
        del layer
        return True

    def embed(self, g: GraphWriter, ids: str, positions: str) -> str:
        """Token rows in the type they are stored in."""
        del positions
        a, c = self.architecture, self._c
        tokens = g.weight("embed_tokens", lambda: c.stored("model.embed_tokens.weight", (a.vocabulary, a.width)))
        return g.node("Cast", g.node("Gather", tokens, ids), to=TensorProto.FLOAT)

    def before_attention(self, g: GraphWriter, layer: int, x: str) -> str:
        """The first norm."""
        return self._norm(g, x, f"{self._at(layer)}.input_layernorm", self.architecture.width)

    def keys_values(self, g: GraphWriter, layer: int, x: str, positions: str) -> tuple[str, str]:
        """Keys rotated, values not."""
        a = self.architecture
        keys = self._rotated(g, layer, x, positions, "k")
        name = f"{self._at(layer)}.self_attn.v_proj"
        return keys, self._linear(g, x, name, (a.width, a.key_heads * a.head_size), f"{self._at(layer)}.attention")

    def queries(self, g: GraphWriter, layer: int, x: str, positions: str) -> str:
        """Scaled after rotation: with a norm between, the weights cannot carry the scale."""
        queries = self._rotated(g, layer, x, positions, "q")
        return g.node("Mul", queries, g.constant(self.architecture.head_size**-0.5, np.float32))

    def _rotated(self, g: GraphWriter, layer: int, x: str, positions: str, part: str) -> str:
        a, at = self.architecture, f"{self._at(layer)}.self_attn"
        width = a.head_size * (a.heads if part == "q" else a.key_heads)
        y = self._linear(g, x, f"{at}.{part}_proj", (a.width, width), f"{self._at(layer)}.attention")
        if a.query_key_norm:
            per_head = g.node("Reshape", y, g.ints(-1, width // a.head_size, a.head_size))
            y = self._norm(g, per_head, f"{at}.{part}_norm", a.head_size)
        cosines = g.weight("rotary_cosines", lambda: np.cos(self._angles))
        sines = g.weight("rotary_sines", lambda: np.sin(self._angles))
        y = g.node("Reshape", y, g.node("Concat", g.node("Shape", positions), g.ints(width), axis=0))
        y = g.node("RotaryEmbedding", y, positions, cosines, sines, domain=FUSED)  # [S, R, width]
        return g.node("Reshape", y, g.ints(-1, width))

    def after_attention(self, g: GraphWriter, layer: int, x: str, attended: str | None) -> str:
        """Two residual sums; the feed-forward is gated."""
        if attended is None:
            raise AssertionError("every layer of this family attends")
        a, at = self.architecture, self._at(layer)
        width = a.heads * a.head_size
        x = g.node("Add", x, self._linear(g, attended, f"{at}.self_attn.o_proj", (width, a.width)))
        y = self._norm(g, x, f"{at}.post_attention_layernorm", a.width)
        source = f"{at}.feed_forward"
        gate = activate(g, a.activation, self._linear(g, y, f"{at}.mlp.gate_proj", (a.width, a.inner), source))
        inner = g.node("Mul", gate, self._linear(g, y, f"{at}.mlp.up_proj", (a.width, a.inner), source))
        return g.node("Add", x, self._linear(g, inner, f"{at}.mlp.down_proj", (a.inner, a.width), f"{at}.down"))

    def _linear(self, g: GraphWriter, x: str, name: str, size: tuple[int, int], source: str | None = None) -> str:
        c = self._c
        bias = c.tensor(f"{name}.bias", size[1]) if f"{name}.bias" in c else None
        return g.linear(x, name, lambda: c.linear(f"{name}.weight", *size), bias, source=source)

    def _norm(self, g: GraphWriter, x: str, name: str, size: int) -> str:
        scale = g.weight(f"{name}.weight", lambda: self._c.tensor(f"{name}.weight", size))
        return g.node("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=self.architecture.epsilon)

    def finish(self, g: GraphWriter, x: str) -> str:
        """The norm after the last layer."""
        return self._norm(g, x, "model.norm", self.architecture.width)

    def _head_name(self) -> str:
        return "model.embed_tokens.weight" if self.architecture.tied_head else "lm_head.weight"

    def head_rows(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Label rows of the head."""
        return self._c.rows(self._head_name(), ids, (self.architecture.vocabulary, self.architecture.width))

    def head(self, g: GraphWriter, x: str) -> str:
        """The whole head."""
        a = self.architecture
        return g.linear(x, "head", lambda: self._c.linear(self._head_name(), a.width, a.vocabulary))
