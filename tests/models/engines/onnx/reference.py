"""The plain way: one sequence at a time in float64, without cache, batch or fused operator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tests.models.engines.onnx.checkpoints import Tensors

    Array = NDArray[np.float64]

_erf = np.vectorize(math.erf)


def logits(made: tuple[dict[str, Any], Tensors], ids: Sequence[int]) -> Array:
    """Logits over the vocabulary after the last id: float64 [vocabulary]."""
    config, stored = made
    weights = {name: value.astype(np.float64) for name, value in stored.items()}
    return (_opt if config["model_type"] == "opt" else _llama)(config, weights, np.asarray(ids))


def _opt(config: dict[str, Any], w: dict[str, Array], ids: NDArray[np.int64]) -> Array:
    root, pre = "model.decoder", config["do_layer_norm_before"]
    x = w[f"{root}.embed_tokens.weight"][ids] + w[f"{root}.embed_positions.weight"][2 : 2 + len(ids)]
    for layer in range(config["num_hidden_layers"]):
        at = f"{root}.layers.{layer}"
        y = _layer_norm(x, w, f"{at}.self_attn_layer_norm") if pre else x
        q, k, v = (_linear(y, w, f"{at}.self_attn.{name}_proj") for name in "qkv")
        x = x + _linear(_attention(q, k, v, config["num_attention_heads"]), w, f"{at}.self_attn.out_proj")
        x = x if pre else _layer_norm(x, w, f"{at}.self_attn_layer_norm")
        y = _layer_norm(x, w, f"{at}.final_layer_norm") if pre else x
        x = x + _linear(_activation(config["activation_function"], _linear(y, w, f"{at}.fc1")), w, f"{at}.fc2")
        x = x if pre else _layer_norm(x, w, f"{at}.final_layer_norm")
    x = _layer_norm(x, w, f"{root}.final_layer_norm") if pre else x
    result: Array = w[f"{root}.embed_tokens.weight"] @ x[-1]
    return result


def _llama(config: dict[str, Any], w: dict[str, Array], ids: NDArray[np.int64]) -> Array:
    heads, key_heads, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    eps = config["rms_norm_eps"]
    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        y = _rms(x, w[f"{at}.input_layernorm.weight"], eps)
        q, k, v = (_linear(y, w, f"{at}.self_attn.{name}_proj") for name in "qkv")
        q, k = q.reshape(-1, heads, size), k.reshape(-1, key_heads, size)
        if config["model_type"] == "qwen3":
            q, k = _rms(q, w[f"{at}.self_attn.q_norm.weight"], eps), _rms(k, w[f"{at}.self_attn.k_norm.weight"], eps)
        q, k = _rotate(q, config), _rotate(k, config)
        k, v = (np.repeat(y.reshape(-1, key_heads, size), heads // key_heads, axis=1) for y in (k, v))
        q, k, v = (y.reshape(len(ids), -1) for y in (q, k, v))
        attended = _attention(q, k, v, heads)
        x = x + _linear(attended, w, f"{at}.self_attn.o_proj")
        y = _rms(x, w[f"{at}.post_attention_layernorm.weight"], eps)
        gate = _linear(y, w, f"{at}.mlp.gate_proj")
        x = x + _linear(gate / (1 + np.exp(-gate)) * _linear(y, w, f"{at}.mlp.up_proj"), w, f"{at}.mlp.down_proj")
    x = _rms(x, w["model.norm.weight"], eps)
    result: Array = w.get("lm_head.weight", w["model.embed_tokens.weight"]) @ x[-1]
    return result


def _linear(x: Array, w: dict[str, Array], name: str) -> Array:
    result: Array = x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", np.zeros(1))
    return result


def _layer_norm(x: Array, w: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    result: Array = scaled * w[f"{name}.weight"] + w[f"{name}.bias"]
    return result


def _rms(x: Array, weight: Array, eps: float) -> Array:
    result: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight
    return result


def _activation(name: str, x: Array) -> Array:
    result: Array = np.maximum(x, 0) if name == "relu" else x * 0.5 * (1 + _erf(x / math.sqrt(2)))
    return result


def _attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    q, k, v = (y.reshape(len(y), heads, -1).transpose(1, 0, 2) for y in (q, k, v))
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    result: Array = (weights @ v).transpose(1, 0, 2).reshape(q.shape[1], -1)
    return result


def _rotate(x: Array, config: dict[str, Any]) -> Array:
    """Rotary positions, with Llama 3's scaling written out case by case as in its paper's code."""
    half = x.shape[-1] // 2
    frequencies = config["rope_theta"] ** (-np.arange(half) / half)
    if scaling := config.get("rope_scaling"):
        old = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        for n, frequency in enumerate(frequencies):
            wavelength = 2 * math.pi / frequency
            if wavelength > old / low:
                frequencies[n] = frequency / scaling["factor"]
            elif wavelength > old / high:
                smooth = (old / wavelength - low) / (high - low)
                frequencies[n] = (1 - smooth) * frequency / scaling["factor"] + smooth * frequency
    angles = np.arange(len(x))[:, None, None] * frequencies
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)], axis=-1
    )
