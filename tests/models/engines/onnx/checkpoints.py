"""Writes small checkpoints of every shape the embedded engine knows, with weights that make every part matter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from models.manifest import Manifest, PromptTemplate, RationaleMarkers, Segment, Tier, file_hash, save_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Tensors = dict[str, "NDArray[Any]"]

VOCABULARY = 96
POSITIONS = 200
LABELS = (21, 22, 23, 24)
END = 3
TYPES = {"bf16": ml_dtypes.bfloat16, "f16": np.float16, "f32": np.float32}


def opt(*, pre_norm: bool = False, activation: str = "gelu", identity: bool = True) -> tuple[dict[str, Any], Tensors]:
    """An OPT of 3 layers; `identity` makes its first layer add nothing, as the shipped checkpoint's does."""
    width, inner, heads, layers = 64, 96, 4, 3
    draw = _Draw()
    root = "model.decoder"
    tensors: Tensors = {
        f"{root}.embed_tokens.weight": draw.normal(VOCABULARY, width),
        f"{root}.embed_positions.weight": draw.normal(POSITIONS + 2, width) * np.float32(0.2),
    }
    for layer in range(layers):
        at = f"{root}.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            draw.linear(tensors, f"{at}.self_attn.{name}", width, width)
        draw.linear(tensors, f"{at}.fc1", width, inner)
        draw.linear(tensors, f"{at}.fc2", inner, width)
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            draw.norm(tensors, f"{at}.{name}", width)
    if pre_norm:
        draw.norm(tensors, f"{root}.final_layer_norm", width)
    if identity:
        for name in ("self_attn.out_proj", "fc2"):
            tensors[f"{root}.layers.0.{name}.weight"][:] = 0
    config = {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "hidden_size": width,
        "word_embed_proj_dim": width,
        "ffn_dim": inner,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "do_layer_norm_before": pre_norm,
        "activation_function": activation,
        "tie_word_embeddings": True,
        "dropout": 0.0,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": END,
    }
    return config, tensors


def llama(kind: str = "qwen3", *, key_heads: int = 2, tied: bool = True) -> tuple[dict[str, Any], Tensors]:
    """A Llama, Mistral, Qwen2 or Qwen3 of 2 layers."""
    width, inner, heads, size, layers = 48, 80, 4, 16, 2
    draw = _Draw()
    tensors: Tensors = {"model.embed_tokens.weight": draw.normal(VOCABULARY, width)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        biased = kind == "qwen2"
        draw.linear(tensors, f"{at}.self_attn.q_proj", width, heads * size, biased=biased)
        draw.linear(tensors, f"{at}.self_attn.k_proj", width, key_heads * size, biased=biased)
        draw.linear(tensors, f"{at}.self_attn.v_proj", width, key_heads * size, biased=biased)
        draw.linear(tensors, f"{at}.self_attn.o_proj", heads * size, width, biased=False)
        draw.linear(tensors, f"{at}.mlp.gate_proj", width, inner, biased=False)
        draw.linear(tensors, f"{at}.mlp.up_proj", width, inner, biased=False)
        draw.linear(tensors, f"{at}.mlp.down_proj", inner, width, biased=False)
        for name in ("input_layernorm", "post_attention_layernorm"):
            draw.norm(tensors, f"{at}.{name}", width, biased=False)
        if kind == "qwen3":
            for name in ("q_norm", "k_norm"):
                draw.norm(tensors, f"{at}.self_attn.{name}", size, biased=False)
    draw.norm(tensors, "model.norm", width, biased=False)
    if not tied:
        tensors["lm_head.weight"] = draw.normal(VOCABULARY, width) * np.float32(0.3)
    config = {
        "model_type": kind,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": size,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "eos_token_id": END,
    }
    if kind == "llama":
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    return config, tensors


def write(
    folder: Path, made: tuple[dict[str, Any], Tensors], *, stored: str = "f32", shards: int = 1, max_tokens: int = 120
) -> Manifest:
    """Write config, weights and manifest; returns the manifest."""
    config, tensors = made
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    cast = {name: value.astype(TYPES[stored]) for name, value in tensors.items()}
    if shards == 1:
        save_file(cast, folder / "model.safetensors", {"format": "pt"})
    else:
        where = {name: f"model-{n % shards + 1:05}-of-{shards:05}.safetensors" for n, name in enumerate(sorted(cast))}
        for file in set(where.values()):
            save_file({n: cast[n] for n, f in where.items() if f == file}, folder / file, {"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return manifest_for(folder, max_tokens=max_tokens)


def manifest_for(folder: Path, *, max_tokens: int) -> Manifest:
    """A manifest for the weights in a folder, saved beside them."""
    prompt = PromptTemplate(
        prefix=(Segment(field="query"),),
        suffix=(Segment(field="title"), Segment(text=">")),
        budgets={"query": 32, "title": 32},
    )
    names = ["config.json", *sorted(p.name for p in folder.glob("*.safetensors"))]
    made = Manifest(
        name="tiny",
        tiers=tuple(
            Tier(name=f"tier {n}", label=f"{n}", token_id=token, band="Good" if n else "Bad")
            for n, token in enumerate(LABELS)
        ),
        prompt=prompt,
        prompt_hash=prompt.hash,
        max_tokens=max_tokens,
        beta=0.5,
        rationale=RationaleMarkers(
            category="c", attributes="a", context="x", reason="r", end_token_id=END, max_tokens=40
        ),
        files={name: file_hash(folder / name) for name in names},
    )
    save_manifest(made, folder)
    return made


class _Draw:
    """Random tensors, the same every time."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(7)

    def normal(self, *shape: int) -> NDArray[np.float32]:
        return self._random.standard_normal(shape, dtype=np.float32)

    def linear(self, tensors: Tensors, name: str, inputs: int, outputs: int, *, biased: bool = True) -> None:
        tensors[f"{name}.weight"] = self.normal(outputs, inputs) * np.float32(1.3 / inputs**0.5)
        if biased:
            tensors[f"{name}.bias"] = self.normal(outputs) * np.float32(0.3)

    def norm(self, tensors: Tensors, name: str, size: int, *, biased: bool = True) -> None:
        tensors[f"{name}.weight"] = 1 + self.normal(size) * np.float32(0.2)
        if biased:
            tensors[f"{name}.bias"] = self.normal(size) * np.float32(0.2)
