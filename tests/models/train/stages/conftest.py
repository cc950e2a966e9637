"""A tiny judge to train, and rows whose tier can be read off the item's words."""

from __future__ import annotations

import json
import random
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from models.manifest import Manifest, file_hash, save_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIERS = ("4", "3", "2", "1")
CATEGORIES = ("match", "match", "related", "mismatch")
ATTRIBUTES: tuple[dict[str, str], ...] = ({"brand": "ok"}, {"brand": "unknown"}, {}, {})


@pytest.fixture(scope="session")
def tiny(wordpiece: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer OPT in the shipped shape: its first layer adds nothing."""
    folder = tmp_path_factory.mktemp("tiny")
    shutil.copyfile(wordpiece / "tokenizer.json", folder / "tokenizer.json")
    names = {"pad_token": "[PAD]", "bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    shape = OPTConfig(
        vocab_size=manifest.tiers[0].token_id + 400,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        do_layer_norm_before=False,
        activation_function="gelu",
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        init_std=0.2,
    )
    model = OPTForCausalLM(shape)
    carrier = model.model.decoder.layers[0]
    with torch.no_grad():
        for part in (carrier.self_attn.out_proj, carrier.fc2):
            part.weight.zero_()
            part.bias.zero_()
    model.save_pretrained(str(folder))
    names_of_files = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
    files = {name: file_hash(folder / name) for name in (*names_of_files, "tokenizer_config.json")}
    save_manifest(manifest.model_copy(update={"files": files, "canaries": ()}), folder)
    return folder


def made(count: int, seed: int, *, context: bool = False) -> list[dict[str, Any]]:
    """Rows of four tiers in turns; the item's title spells its tier, so that a few steps can learn it."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        tier = number % 4
        row = {
            "query": f"phone {rng.randrange(999)}",
            "title": ("phone", "case", "laptop", "excellent")[tier] + f" {rng.randrange(9)}",
            "tier": TIERS[tier],
            "verdicts": {"category": CATEGORIES[tier], "attributes": ATTRIBUTES[tier]},
            "reason": "case",
            "domain": "ab"[number % 2],
        }
        rows.append({**row, "context": "phone case", "context_use": "ignore"} if context else row)
    return rows


@pytest.fixture
def run_settings(tiny: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Settings of a run on the tiny judge; files are written beside it."""

    def settings(*, rows: int = 32, context: bool = False, **more: Any) -> dict[str, Any]:
        for name, seed, count in (("train", 1, rows), ("valid", 2, 24)):
            lines = (json.dumps(row) + "\n" for row in made(count, seed, context=context))
            (tmp_path / f"{name}.jsonl").write_text("".join(lines))
        return {
            "base": str(tiny),
            "output": tmp_path / "run",
            "train": tmp_path / "train.jsonl",
            "valid": tmp_path / "valid.jsonl",
            "batch_size": 8,
            "learning_rate": 1e-2,
            "rationale_tokens": 40,
            "log_steps": 1,
            "save_steps": 2,
            **more,
        }

    return settings
