"""What a checkpoint's `config.json` says, reduced to what the graph builder needs. Unknown settings are refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from models.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

Family = Literal["opt", "llama"]
Precision = Literal["int8", "float32"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]

_ACTIVATIONS: Final[dict[str, Activation]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Decoder families whose layers are RMS norm, rotary attention and a gated feed-forward, and nothing else.
_LLAMA_LIKE: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary position embedding: `inverse_frequencies` in radians per position, float, head_size / 2 of them."""

    inverse_frequencies: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Shape of a causal decoder.

    Attributes:
        positions: positions the model knows; prompts and decoded text together cannot be longer.
        position_offset: first row of the learned position table in use (OPT: 2).
        rotary: None for learned positions.
        pre_norm: norms stand before each sub-block (and one after the last layer) rather than after its residual sum.
        query_key_norm: an RMS norm over each head's query and key (Qwen3).
    """

    family: Family
    layers: int
    width: int
    heads: int
    key_heads: int
    head_size: int
    inner: int
    vocabulary: int
    positions: int
    activation: Activation
    epsilon: float
    pre_norm: bool
    tied_head: bool
    position_offset: int = 0
    rotary: Rotary | None = None
    query_key_norm: bool = False


def read_architecture(folder: Path) -> Architecture:
    """Read and check `config.json`.

    Raises:
        CheckpointError: missing, not JSON, or a setting that this engine does not compute; the message names it.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise CheckpointError(f"{path} is missing or not JSON") from error
    kind = config.get("model_type")
    if kind == "opt":
        return _opt(config)
    if kind in _LLAMA_LIKE:
        return _llama(config)
    known = ", ".join(sorted({"opt", *_LLAMA_LIKE}))
    raise CheckpointError(f"{path}: model_type {kind!r} is not one the embedded engine computes ({known})")


def _require(config: dict[str, Any], expected: dict[str, Any]) -> None:
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise CheckpointError(f"config.json: {key}={config[key]!r} is not supported, only {value!r}")


def _size(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default) or default
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"config.json: {key} must be a whole number above 0, not {value!r}")
    return value


def _divides(config: dict[str, Any], part: str, whole: str) -> None:
    if config[whole] % config[part]:
        raise CheckpointError(f"config.json: {whole}={config[whole]} is not a multiple of {part}={config[part]}")


def _activation(name: str) -> Activation:
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"config.json: activation {name!r} is not supported, only {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _opt(config: dict[str, Any]) -> Architecture:
    width, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    _divides(config, "num_attention_heads", "hidden_size")
    pre_norm = bool(config.get("do_layer_norm_before", True))
    _require(
        config,
        {
            "word_embed_proj_dim": width,
            "enable_bias": True,
            "layer_norm_elementwise_affine": True,
            "_remove_final_layer_norm": False,
        },
    )
    return Architecture(
        family="opt",
        layers=_size(config, "num_hidden_layers"),
        width=width,
        heads=heads,
        key_heads=heads,
        head_size=width // heads,
        inner=_size(config, "ffn_dim"),
        vocabulary=_size(config, "vocab_size"),
        positions=_size(config, "max_position_embeddings"),
        activation=_activation(config.get("activation_function", "relu")),
        epsilon=1e-5,
        pre_norm=pre_norm,
        tied_head=bool(config.get("tie_word_embeddings", True)),
        position_offset=2,
    )


def _llama(config: dict[str, Any]) -> Architecture:
    _require(config, {"use_sliding_window": False, "mlp_bias": False, "pretraining_tp": 1})
    width, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    key_heads = _size(config, "num_key_value_heads", heads)
    _divides({**config, "num_key_value_heads": key_heads}, "num_key_value_heads", "num_attention_heads")
    head_size = _size(config, "head_dim", width // heads)
    positions = _size(config, "max_position_embeddings")
    window = config.get("sliding_window")
    if config["model_type"] == "mistral" and window is not None:
        positions = min(positions, int(window))  # within the window, windowed attention is plain attention
    return Architecture(
        family="llama",
        layers=_size(config, "num_hidden_layers"),
        width=width,
        heads=heads,
        key_heads=key_heads,
        head_size=head_size,
        inner=_size(config, "intermediate_size"),
        vocabulary=_size(config, "vocab_size"),
        positions=positions,
        activation=_activation(config.get("hidden_act", "silu")),
        epsilon=float(config.get("rms_norm_eps", 1e-6)),
        pre_norm=True,
        tied_head=bool(config.get("tie_word_embeddings", False)),
        rotary=Rotary(_inverse_frequencies(config, head_size)),
        query_key_norm=config["model_type"] == "qwen3",
    )


def _inverse_frequencies(config: dict[str, Any], size: int) -> tuple[float, ...]:
    """Rotary frequencies, plain or with Llama 3's scaling; transformers 5 keeps both in `rope_parameters`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    plain = [theta ** (-2.0 * i / size) for i in range(size // 2)]
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return tuple(plain)
    if kind == "linear":
        return tuple(f / float(rope["factor"]) for f in plain)
    if kind == "llama3":
        return tuple(_llama3(f, rope) for f in plain)
    raise CheckpointError(f"config.json: rope_type {kind!r} is not supported, only default, linear and llama3")


def _llama3(frequency: float, rope: dict[str, Any]) -> float:
    """Llama 3.1's scaling: low frequencies divided by `factor`, high ones kept, a ramp between (transformers)."""
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = float(rope["original_max_position_embeddings"]) * frequency / 6.283185307179586
    smooth = min(1.0, max(0.0, (turns - low) / (high - low)))
    return (1.0 - smooth) * frequency / float(rope["factor"]) + smooth * frequency
