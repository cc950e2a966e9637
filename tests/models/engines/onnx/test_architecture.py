"""What is read from config.json, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from models.engines.onnx.architecture import read_architecture
from models.errors import CheckpointError
from tests.models.engines.onnx import checkpoints

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, config: dict[str, Any]) -> Any:
    """The architecture of a config."""
    (folder / "config.json").write_text(json.dumps(config))
    return read_architecture(folder)


def test_opt_is_read(tmp_path: Path) -> None:
    """Sizes, norm order, activation and position offset come from an OPT config."""
    found = read(tmp_path, checkpoints.opt()[0])
    assert (found.family, found.layers, found.width, found.inner) == ("opt", 3, 64, 96)
    assert (found.heads, found.head_size, found.pre_norm, found.position_offset) == (4, 16, False, 2)


def test_qwen3_is_read(tmp_path: Path) -> None:
    """Shared key heads, head size and head norms come from a Qwen3 config."""
    found = read(tmp_path, checkpoints.llama("qwen3")[0])
    assert (found.heads, found.key_heads, found.head_size, found.query_key_norm) == (4, 2, 16, True)
    assert found.rotary is not None
    assert found.rotary.inverse_frequencies[0] == 1.0


def test_both_spellings_of_rotary_settings_are_one(tmp_path: Path) -> None:
    """Version 5 of transformers writes rope_parameters where older versions wrote rope_theta and rope_scaling."""
    old = checkpoints.llama("llama")[0]
    new = {k: v for k, v in old.items() if not k.startswith("rope")}
    new["rope_parameters"] = {**old["rope_scaling"], "rope_theta": old["rope_theta"]}
    assert read(tmp_path, new) == read(tmp_path, old)


def test_a_window_bounds_the_positions(tmp_path: Path) -> None:
    """Within Mistral's window attention is plain: prompts may be as long as the window."""
    config = checkpoints.llama("mistral")[0]
    assert read(tmp_path, {**config, "sliding_window": 64}).positions == 64


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "bloom"}, "bloom"),
        ({"activation_function": "mish"}, "mish"),
        ({"word_embed_proj_dim": 32}, "word_embed_proj_dim"),
        ({"enable_bias": False}, "enable_bias"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
    ],
)
def test_what_is_not_computed_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    """A setting that would change the numbers is refused by name, never ignored."""
    with pytest.raises(CheckpointError, match=named):
        read(tmp_path, {**checkpoints.opt()[0], **change})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
    ],
)
def test_unknown_llama_settings_are_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    """So are settings of the Llama family."""
    with pytest.raises(CheckpointError, match=named):
        read(tmp_path, {**checkpoints.llama("qwen3")[0], **change})


def test_no_config_is_said(tmp_path: Path) -> None:
    """A folder without config.json, or with a broken one, is named."""
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_architecture(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_architecture(tmp_path)
